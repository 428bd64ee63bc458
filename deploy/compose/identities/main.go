// Identities makes what the Compose set needs before its programs can talk to one another: a
// throwaway CA for mutual TLS with an identity for certservice and one for its clients, the secret
// that certservice shares with the certification authority, and certservice's cmpServers.json. All
// of it is random, none of it is for production, and the CA's key is forgotten at once.
//
// Each reader has a directory of its own, so that a container mounts no secret it has no use for:
// with -foreign-ca, which is for a CA that runs as another user, the modes let anyone read the
// CA's secret and put its root into the directory root.
package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// validity of the identities: long enough for a development set that is left alone.
const validity = 365 * 24 * time.Hour

type settings struct {
	dir     string // holds the directories certservice, client and ca
	host    string // DNS name of certservice
	name    string // of the CA, as in CA_NAME
	url     string // where the CA answers CMP
	issuer  string // the CA's name
	anchors string // where certservice finds the CA's root
	foreign bool   // the CA runs as another user
}

func main() {
	var s settings
	flag.StringVar(&s.dir, "dir", "/var/lib/identities", "directory of the directories certservice, client and ca")
	flag.StringVar(&s.host, "host", "certservice", "DNS name of certservice")
	flag.StringVar(&s.name, "ca-name", "RA", "name of the CA at certservice, and reference value of the secret")
	flag.StringVar(&s.url, "cmp-url", "", "where the CA answers CMP")
	flag.StringVar(&s.issuer, "issuer", "", "distinguished name of the CA")
	flag.StringVar(&s.anchors, "trust-anchors", "", "where certservice finds the CA's root")
	flag.BoolVar(&s.foreign, "foreign-ca", false,
		"let a CA that runs as another user read its secret and write its root")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "identities:", err)
		os.Exit(1)
	}
}

// run writes everything, the client's trust anchor last: where that stands, the rest does, and is
// left alone, because the running programs and the CA hold on to it.
func run(s settings) error {
	last := filepath.Join(s.dir, "client", "root.pem")
	if _, err := os.Stat(last); err == nil {
		fmt.Fprintln(os.Stderr, "identities: they exist already and are kept")
		return nil
	}
	transport, err := fixture.NewCA("Compose")
	if err != nil {
		return err
	}
	transport.Validity = validity
	if err := writeIdentity(filepath.Join(s.dir, "certservice"), transport, s.host); err != nil {
		return err
	}
	secret := rand.Text()
	iak := filepath.Join(s.dir, "ca", "iak")
	if err := writeFile(iak, []byte(secret)); err != nil {
		return err
	}
	if s.foreign {
		if err := os.Chmod(iak, 0o644); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(s.dir, "root"), 0o777); err != nil {
			return err
		}
	}
	servers, err := s.cmpServers(secret)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(s.dir, "certservice", "cmpServers.json"), servers); err != nil {
		return err
	}
	if err := writeIdentity(filepath.Join(s.dir, "client"), transport, "certfetcher"); err != nil {
		return err
	}
	return writeFile(last, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: transport.Root.Raw}))
}

// cmpServers is certservice's configuration; it holds the secret.
func (s settings) cmpServers(secret string) ([]byte, error) {
	server := map[string]any{
		"caName": s.name, "url": s.url, "issuerDN": s.issuer, "trustAnchors": s.anchors,
		"authentication": map[string]string{"iak": secret, "rv": s.name},
	}
	return json.MarshalIndent(map[string]any{"cmpv2Servers": []any{server}}, "", "  ")
}

// writeIdentity writes keystore.p12 and truststore.p12, each with its password in a .pass file.
func writeIdentity(dir string, transport *fixture.CA, name string) error {
	key, chain, err := transport.Identity(name, name)
	if err != nil {
		return err
	}
	for store, entry := range map[string]keystore.Entry{
		"keystore":   {Alias: name, Key: key, Chain: chain},
		"truststore": {Alias: "root", Chain: []*x509.Certificate{transport.Root}, Trusted: true},
	} {
		password := rand.Text()
		content, err := keystore.EncodePKCS12([]keystore.Entry{entry}, password, keystore.ProfileModern)
		if err != nil {
			return fmt.Errorf("encoding %s: %w", store, err)
		}
		if err := writeFile(filepath.Join(dir, store+".pass"), []byte(password)); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, store+".p12"), content); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes for the user of all containers only.
func writeFile(path string, content []byte) error {
	return os.WriteFile(path, content, 0o600)
}
