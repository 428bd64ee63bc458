package e2e

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

const bouncyCastle = "/usr/share/java/bcprov.jar"

// keytool ARGUMENT... and java SOURCE ARGUMENT... run these programs, which must succeed, java with Bouncy Castle.
// Their output can be looked at with stdout.
func runKeytool(ts *testscript.TestScript, _ bool, args []string) {
	out, err := fixture.Keytool(given(ts).test, ts.MkAbs("."), args...)
	_, _ = ts.Stdout().Write([]byte(out))
	ts.Check(err)
}

func runJava(ts *testscript.TestScript, _ bool, args []string) {
	command := fixture.Java(given(ts).test, bouncyCastle, args[0], args[1:]...)
	command.Dir = ts.MkAbs(".")
	out, err := command.CombinedOutput()
	_, _ = ts.Stdout().Write(out)
	ts.Check(err)
}

// names FILE prints a certificate's names as openssl does, and sets NAMES to them.
func names(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("openssl", "x509", "-in", args[0], "-noout", "-ext", "subjectAltName"))
	_, list, _ := strings.Cut(ts.ReadFile("stdout"), ":")
	ts.Setenv("NAMES", strings.TrimSpace(list))
	_, _ = ts.Stdout().Write([]byte(strings.TrimSpace(list)))
}

// fromkeytool N sets NAMES to the N names that keytool has printed.
func fromKeytool(ts *testscript.TestScript, _ bool, args []string) {
	list := regexp.MustCompile(`(?m)^ +(DNSName|IPAddress|RFC822Name|URIName): .*$`).FindAllString(
		ts.ReadFile("stdout"), -1)
	if want, _ := strconv.Atoi(args[0]); len(list) != want {
		ts.Fatalf("keytool printed %q, want %s names", list, args[0])
	}
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	ts.Setenv("NAMES", strings.Join(list, ","))
}

// roots FILE NAME writes the root of a new CA.
func roots(ts *testscript.TestScript, _ bool, args []string) {
	other, err := fixture.NewCA(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fixture.CertificatesPEM(other.Root), 0o600))
}

// truststore FILE CERTIFICATE... writes a store, in the format of its extension, with certificates of files as entry-1,
// entry-2 and so on, also with those that Go cannot use.
func writeTruststore(ts *testscript.TestScript, _ bool, args []string) {
	var entries []keystore.Entry
	content := ""
	for i, file := range args[1:] {
		content += ts.ReadFile(file)
		block, _ := pem.Decode([]byte(ts.ReadFile(file)))
		cert, err := pki.Parse(block.Bytes)
		ts.Check(err)
		entries = append(entries, keystore.Entry{Alias: fmt.Sprintf("entry-%d", i+1),
			Chain: []*x509.Certificate{cert}, Trusted: true})
	}
	data, err := []byte(content), error(nil)
	switch filepath.Ext(args[0]) {
	case ".jks":
		data, err = keystore.EncodeJKS(entries, fixture.Password, time.Now())
	case ".p12":
		data, err = keystore.EncodePKCS12(entries, fixture.Password, keystore.ProfileModern)
	}
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// ca NAME [country-first] starts a CertService with an authority of test/testdata/constraints, below the root there.
// country-first has it give the subject with the country as its first part.
func startWithStoredCA(ts *testscript.TestScript, _ bool, args []string) {
	read := func(name string) []byte {
		block, _ := pem.Decode([]byte(ts.ReadFile(filepath.Join(ts.Getenv("TESTDATA"), "constraints", name+".pem"))))
		return block.Bytes
	}
	root, err := x509.ParseCertificate(read("root"))
	ts.Check(err)
	issuing, err := x509.ParseCertificate(read(args[0]))
	ts.Check(err)
	key, err := x509.ParsePKCS8PrivateKey(read(args[0] + "-key"))
	ts.Check(err)
	authority := fixture.CA{Root: root, Issuing: issuing, IssuingKey: key.(crypto.Signer)}
	if len(args) > 1 && args[1] != "" {
		part := func(oid int, value string) pkix.RelativeDistinguishedNameSET {
			return pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, oid}, Value: value}}
		}
		subject, err := asn1.Marshal(pkix.RDNSequence{part(6, "SE"), part(8, "Skane"),
			part(10, "Example"), part(3, "app.example.org")})
		ts.Check(err)
		authority.Change = func(leaf *x509.Certificate) { leaf.RawSubject = subject }
	}
	startService(ts, service.Options{Wrap: func(s *service.Service, next http.Handler) http.Handler {
		*s.CA = authority
		return next
	}})
}
