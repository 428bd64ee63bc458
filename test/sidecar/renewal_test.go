package sidecar

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// renewals in a row, each of its own accord.
const renewals = 6

// startStack runs certservice and devca, whose certificates live for the given time.
func startStack(t *testing.T, dir, life string) *fixture.Stack {
	t.Helper()
	s := fixture.Must(fixture.StartStack(binDir, dir, "DEVCA_VALIDITY="+life))
	t.Cleanup(s.Stop)
	return s
}

func TestSidecar_renewalsInARow_underAReader(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"symlink", "inplace"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := startStack(t, t.TempDir(), "20s")
			volume := filepath.Join(t.TempDir(), "volume")
			p := run(t, volume, append(environment(s.URL, s.Dir, volume), "RENEW_AT=3%",
				"OUTPUT_LAYOUT="+layout, "OUTPUT_TYPE=P12,JKS,PEM"))
			p.await(1, planned)
			r := startReader(volume, layout == "symlink")
			for n := 1; n <= renewals; n++ {
				p.await(n, updated)
			}
			p.await(renewals+1, planned)
			p.end()
			r.check(t, renewals)
			assert.Zero(t, p.count(again))
			assert.Zero(t, p.count(putBack), "its own publications disturb no one")
		})
	}
}

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
	if symlink {
		target, err := os.Readlink(filepath.Join(volume, "..data"))
		if err != nil {
			return "", err
		}
		return set.Read(filepath.Join(volume, target), []string{"P12", "JKS", "PEM"})
	}
	combined, err := os.ReadFile(filepath.Join(volume, "keystore-combined.pem"))
	if err == nil {
		_, err = tls.X509KeyPair(combined, combined)
	}
	if err == nil {
		_, err = set.Read(volume, []string{"JKS"})
	}
	if err != nil {
		return "", err
	}
	return set.Read(volume, []string{"P12"})
}
