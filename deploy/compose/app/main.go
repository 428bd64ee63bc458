// App is the application of the Compose set: it serves HTTPS with the keystore that certfetcher
// published, says which certificate that is, and takes up a renewed one with the next connection.
//
//	app        serves
//	app probe  connects as a client that trusts the published truststore; exit code 0 when it is served
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

func main() {
	certs := flag.String("certs", "/var/run/certs", "directory that certfetcher publishes to")
	address := flag.String("listen", ":8443", "address to serve HTTPS on")
	name := flag.String("name", "app", "name that the certificate is for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	app := &application{dir: *certs}
	var err error
	switch flag.Arg(0) {
	case "":
		err = app.serve(ctx, *address)
	case "probe":
		err = app.probe(ctx, *address, *name)
	default:
		err = fmt.Errorf("has argument %q, want probe or none", flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

type application struct {
	dir string

	mu          sync.Mutex
	generation  string // where ..data led when the certificate was read
	certificate *tls.Certificate
}

// serve answers every request with the certificate in use, until ctx ends.
func (a *application) serve(ctx context.Context, address string) error {
	if _, err := a.current(nil); err != nil {
		return err
	}
	server := &http.Server{
		Addr: address, ReadHeaderTimeout: 5 * time.Second,
		TLSConfig: &tls.Config{GetCertificate: a.current},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			certificate, err := a.current(nil)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			leaf := certificate.Leaf
			fmt.Fprintf(w, "%s\nserial %X\nuntil %s\n", leaf.Subject, leaf.SerialNumber,
				leaf.NotAfter.Format(time.RFC3339))
		}),
	}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// current is the published certificate, read when ..data leads elsewhere than before. All files of
// a set are read from where it leads, so that key and password are of one generation.
func (a *application) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	generation, err := os.Readlink(filepath.Join(a.dir, "..data"))
	if err != nil {
		return nil, err
	}
	if generation == a.generation {
		return a.certificate, nil
	}
	entries, err := a.read(generation, "keystore")
	if err != nil {
		return nil, err
	}
	key := entries[0]
	if key.Key == nil || len(key.Chain) == 0 {
		return nil, errors.New("keystore.p12 has no key with a certificate as its first entry")
	}
	certificate := &tls.Certificate{PrivateKey: key.Key, Leaf: key.Chain[0]}
	for _, c := range key.Chain {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	a.generation, a.certificate = generation, certificate
	return certificate, nil
}

// read reads a PKCS#12 store with its password beside it.
func (a *application) read(generation, store string) ([]keystore.Entry, error) {
	content, err := os.ReadFile(filepath.Join(a.dir, generation, store+".p12"))
	if err != nil {
		return nil, err
	}
	password, err := os.ReadFile(filepath.Join(a.dir, generation, store+".pass"))
	if err != nil {
		return nil, err
	}
	entries, _, err := keystore.Decode(content, strings.TrimSpace(string(password)))
	return entries, err
}

// probe fails unless the address answers on loopback with a certificate for the name that chains
// to the published truststore.
func (a *application) probe(ctx context.Context, address, name string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	entries, err := a.read("..data", "truststore")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	for _, entry := range entries {
		roots.AddCert(entry.Chain[0])
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://127.0.0.1:"+port, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("has status %s, want 200", response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
