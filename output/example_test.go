package output_test

import (
	"crypto/x509"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"

	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// A set of PEM files is published, as a whole, for an application that reads /certs.
func ExampleVolume_Publish() {
	dir, err := os.MkdirTemp("", "certs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	authority, err := fixture.NewCA("Example")
	if err != nil {
		log.Fatal(err)
	}
	key, chain, err := authority.Identity("app.example.org")
	if err != nil {
		log.Fatal(err)
	}

	volume, err := output.Open(output.Config{Dir: dir, Types: []string{output.TypePEM}})
	if err != nil {
		log.Fatal(err)
	}
	published, err := volume.Publish(output.Bundle{Key: key, Chain: chain,
		Trusted: []*x509.Certificate{authority.Root}})
	if err != nil {
		log.Fatal(err)
	}
	for _, path := range published.Files {
		fmt.Println(filepath.Base(path))
	}
	// Output:
	// truststore.pem
	// keystore-combined.pem
	// key.pem
	// keystore.pem
}

func ExampleFiles() {
	for _, file := range output.Files() {
		if slices.Contains(file.Formats, output.TypeP12) {
			fmt.Println(file.Name, file.Formats)
		}
	}
	// Output:
	// keystore.pass [P12 JKS]
	// truststore.pass [P12 JKS]
	// truststore.p12 [P12]
	// keystore.p12 [P12]
}
