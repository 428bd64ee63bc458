package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// The CertService is a throwaway one here. It writes what mutual TLS needs into a directory.
func ExampleClient_Enroll() {
	dir := fixture.Must(os.MkdirTemp("", "example"))
	defer os.RemoveAll(dir)
	server := fixture.Must(service.Start(dir, service.Options{}))
	defer server.Stop()

	identity, err := tls.LoadX509KeyPair(
		filepath.Join(dir, "client-certificate.pem"), filepath.Join(dir, "client-key.pem"))
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(fixture.Must(os.ReadFile(filepath.Join(dir, "truststore.pem"))))
	c, err := client.New(client.Config{
		URL: server.URL, CAName: "RA", Timeout: 10 * time.Second,
		TLS: &tls.Config{Certificates: []tls.Certificate{identity}, RootCAs: roots},
	})
	if err != nil {
		log.Fatal(err)
	}

	key := fixture.Must(keygen.GenerateKey("ECDSA-P256"))
	template := &x509.CertificateRequest{DNSNames: []string{"app.example.org"}}
	csr := fixture.Must(keygen.CreateCSR(template, key))
	keyDER := fixture.Must(x509.MarshalPKCS8PrivateKey(key))
	answer, err := c.Enroll(context.Background(), client.Request{
		CSR: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	})
	if err != nil {
		log.Fatal(err)
	}
	chain, trusted, err := answer.Certificates()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(chain[0].DNSNames, len(chain), len(trusted))
	// Output: [app.example.org] 2 1
}
