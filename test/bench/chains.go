package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// answering is a CA whose answers have the certificates that it is told to send along.
type answering struct {
	service.Authority
	signers, trusted []*x509.Certificate
	took             time.Duration // of the last one
}

func (a *answering) Enroll(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	begin := time.Now()
	defer func() { a.took = time.Since(begin) }()
	issued, err := a.Authority.Enroll(ctx, r)
	if err == nil && a.trusted != nil {
		issued.Chain = append(issued.Chain[:1], a.signers...)
		issued.Trusted = a.trusted
	}
	return issued, err
}

// below makes the certificate of a CA for a key. Without a parent it is a root.
func below(name string, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name,
		Organization: []string{"Throwaway"}}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	if parent == nil {
		parent, parentKey = template, key
	}
	der := fixture.Must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey))
	return fixture.Must(x509.ParseCertificate(der))
}

// chains is how the cost of a run grows with the certificates that it reads and writes.
func (b *bench) chains() {
	sizes := either(b, []int{1, 10, 100, 1000}, []int{1, 3, 10, 30, 100, 300, 1000})
	most := sizes[len(sizes)-1]
	answers := &answering{}
	s := fixture.Must(service.Start(b.newDir("identity"), service.Options{Authority: answers}))
	b.atEnd(s.Stop)

	key, rsaKey := fixture.NewKey("P-256"), fixture.NewKey("RSA-2048") // of all CAs
	root := below("Root", key, nil, nil)
	// By the length of the chain; signers are those of the last one, the nearest first.
	cas := []fixture.CA{{Root: root, Issuing: root, RootKey: key, IssuingKey: key}}
	signers := []*x509.Certificate{}
	roots := []*x509.Certificate{root}
	rsaRoots := []*x509.Certificate{root}
	for i := range most - 1 {
		ca := below(fmt.Sprintf("CA %d", i), key, cas[len(cas)-1].Issuing, key)
		cas = append(cas, fixture.CA{Root: root, Issuing: ca, RootKey: key, IssuingKey: key})
		signers = slices.Insert(signers, 0, ca)
		roots = append(roots, below(fmt.Sprintf("Root %d", i), key, nil, nil))
		rsaRoots = append(rsaRoots, below(fmt.Sprintf("RSA root %d", i), rsaKey, nil, nil))
	}
	chainOf := func(n int) {
		answers.CA, answers.signers, answers.trusted = &cas[n-1], signers[most-n:], roots[:1]
	}
	trust := func(roots []*x509.Certificate) { answers.CA, answers.signers, answers.trusted = &cas[0], nil, roots }
	fetch := func(output string, variables ...string) *exec.Cmd {
		command := exec.Command(program)
		command.Env = s.Environment(b.newName("volume"), append([]string{"OUTPUT_TYPE=" + output}, variables...)...)
		return command
	}
	truststores := filepath.Join(b.dir, "truststore-")
	for _, n := range sizes {
		fixture.Must(0, os.WriteFile(fmt.Sprint(truststores, n), fixture.CertificatesPEM(
			append([]*x509.Certificate{s.Transport.Root}, roots[:n-1]...)...), 0o600))
		trust(roots[:n])
		run(fetch("P12", "OUTPUT_PATH="+filepath.Join(b.dir, fmt.Sprint("kept-", n))))
	}

	head := []string{"certificates"}
	var times, memories []growth
	var timeColumns, memoryColumns [][]string
	refusals := map[string][]string{} // by what they say
	for _, kind := range []struct {
		name    string
		command func(n int) *exec.Cmd
	}{
		{"chain, PEM", func(n int) *exec.Cmd { chainOf(n); return fetch("PEM") }},
		{"chain, PKCS#12", func(n int) *exec.Cmd { chainOf(n); return fetch("P12") }},
		{"trusted, PEM", func(n int) *exec.Cmd { trust(roots[:n]); return fetch("PEM") }},
		{"trusted, PKCS#12", func(n int) *exec.Cmd { trust(roots[:n]); return fetch("P12") }},
		{"trusted, RSA", func(n int) *exec.Cmd { trust(rsaRoots[:n]); return fetch("PEM") }},
		{"truststore", func(n int) *exec.Cmd {
			chainOf(1)
			return fetch("PEM", fmt.Sprint("TRUSTSTORE_PATH=", truststores, n))
		}},
		{"kept, PKCS#12", func(n int) *exec.Cmd {
			return fetch("P12", "OUTPUT_PATH="+filepath.Join(b.dir, fmt.Sprint("kept-", n)))
		}},
	} {
		took, memory, most := ofRuns(kind.name, sizes, either(b, 5, 20), kind.command)
		head = append(head, kind.name)
		timeColumns = append(timeColumns, column(sizes, "%.1f ms", took))
		memoryColumns = append(memoryColumns, column(sizes, "%.1f MiB", memory))
		times, memories = append(times, took), append(memories, memory)
		if most != "" {
			refusals[most] = append(refusals[most], kind.name)
		}
	}
	var limits [][]string
	for _, most := range slices.Sorted(maps.Keys(refusals)) {
		limits = append(limits, []string{strings.Join(refusals[most], "; "), most})
	}
	b.write("chains", tableOf(head, sizes, timeColumns...)+"\nPeak memory of the same runs:\n\n"+
		tableOf(head, sizes, memoryColumns...)+"\n"+report.Table(limitHead, limits)+
		b.hold(append(times, memories...)...))
	b.draw("growth-chains", plotOf("A run of certfetcher", "certificates", "ms", times...))
	b.draw("growth-chains-memory", plotOf("Peak memory of a run", "certificates", "MiB", memories...))
}
