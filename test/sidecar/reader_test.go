package sidecar

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// reader opens the stores of a volume in a loop, as an application that reloads does.
type reader struct {
	stop  chan struct{}
	ended sync.WaitGroup

	rounds  int
	serials map[string]bool // of the certificates seen
	faults  []string
}

// startReader reads a volume with all types. In the symlink layout it resolves ..data once for each round,
// and demands one generation; else each file has to be whole by itself.
func startReader(volume string, symlink bool) *reader {
	r := &reader{stop: make(chan struct{}), serials: map[string]bool{}}
	r.ended.Go(func() {
		for {
			select {
			case <-r.stop:
				return
			default:
			}
			begin := time.Now()
			serial, err := readSet(volume, symlink)
			if err != nil && len(r.faults) < 10 {
				r.faults = append(r.faults, err.Error())
			}
			r.serials[serial] = true
			r.rounds++
			<-time.After(time.Since(begin)) // half of a processor is enough to meet every state
		}
	})
	return r
}

// check ends the reader and looks at what it saw.
func (r *reader) check(t *testing.T, renewals int) {
	t.Helper()
	close(r.stop)
	r.ended.Wait()
	assert.Empty(t, r.faults, "in %d rounds", r.rounds)
	assert.Greater(t, r.rounds, renewals)
	assert.Greater(t, len(r.serials), 2, "certificates seen by the reader, which may be slow")
	t.Logf("%d rounds, %d certificates", r.rounds, len(r.serials))
}

// readSet opens everything once, and returns the serial number of the certificate.
func readSet(volume string, symlink bool) (string, error) {
	dir := volume
	if symlink {
		target, err := os.Readlink(filepath.Join(volume, "..data"))
		if err != nil {
			return "", err
		}
		dir = filepath.Join(volume, target)
	}
	p12, err := readPair(dir, ".p12")
	if err != nil {
		return "", err
	}
	jks, err := readPair(dir, ".jks")
	if err != nil {
		return "", err
	}
	combined, err := readEntries(dir, "keystore-combined.pem", "")
	if err != nil {
		return "", err
	}
	if err := fits(combined[0].Key, combined[0].Chain); err != nil {
		return "", fmt.Errorf("keystore-combined.pem: %w", err)
	}
	if !symlink {
		return pki.Serial(p12), nil
	}
	key, err := readEntries(dir, "key.pem", "")
	if err != nil {
		return "", err
	}
	chain, err := readEntries(dir, "keystore.pem", "")
	if err != nil {
		return "", err
	}
	if err := fits(key[0].Key, chain[0].Chain); err != nil {
		return "", fmt.Errorf("key.pem and keystore.pem: %w", err)
	}
	if !p12.Equal(jks) || !p12.Equal(chain[0].Chain[0]) || !p12.Equal(combined[0].Chain[0]) {
		return "", errors.New("the set has certificates of several generations")
	}
	return pki.Serial(p12), nil
}

// readPair opens keystore and truststore of one type, each with the password beside it.
func readPair(dir, extension string) (*x509.Certificate, error) {
	trusted, err := readEntries(dir, "truststore"+extension, "truststore.pass")
	if err != nil {
		return nil, err
	}
	entries, err := readEntries(dir, "keystore"+extension, "keystore.pass")
	if err != nil {
		return nil, err
	}
	if err := fits(entries[0].Key, entries[0].Chain); err != nil {
		return nil, fmt.Errorf("keystore%s: %w", extension, err)
	}
	roots, signers := x509.NewCertPool(), x509.NewCertPool()
	for _, e := range trusted {
		roots.AddCert(e.Chain[0])
	}
	for _, cert := range entries[0].Chain[1:] {
		signers.AddCert(cert)
	}
	// At a time when it was valid: a reader may be slow, and the certificate lives for seconds.
	leaf := entries[0].Chain[0]
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: signers, CurrentTime: leaf.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return leaf, err
}

func readEntries(dir, name, passwordFile string) ([]keystore.Entry, error) {
	var password []byte
	var err error
	if passwordFile != "" {
		if password, err = os.ReadFile(filepath.Join(dir, passwordFile)); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	entries, _, err := keystore.Decode(data, string(password))
	if err == nil && len(entries) == 0 {
		err = errors.New("it has no entries")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return entries, nil
}

func fits(key crypto.Signer, chain []*x509.Certificate) error {
	if key == nil || len(chain) == 0 {
		return errors.New("there is no key or no certificate")
	}
	if public, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return errors.New("the key does not fit the certificate")
	}
	return nil
}
