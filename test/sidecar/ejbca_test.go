package sidecar

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/ejbca"
	"github.com/certfetcher/certfetcher/test/stack"
)

const ejbcaSecret = "the-secret-of-ejbca"

// passwords are those of client mode.
var passwords = map[string]string{"app.example.org": ejbcaSecret}

// estate is EJBCA, certservice, and where the sidecar is.
type estate struct {
	*ejbca.Server
	t     *testing.T
	stack *stack.Stack
}

// withEJBCA runs certservice for an EJBCA. The changes are to its entry of cmpServers.json; nil removes a member.
func withEJBCA(t *testing.T, config ejbca.Config, changes map[string]any) *estate {
	t.Helper()
	if config.Passwords == nil {
		config.Secret = ejbcaSecret
	}
	authority, err := ejbca.New(config)
	require.NoError(t, err)
	server := httptest.NewServer(authority)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	root := filepath.Join(dir, "ejbca-root.pem")
	require.NoError(t, os.WriteFile(root, pemOf(authority.Root()), 0o600))
	entry := map[string]any{
		"url":            server.URL + "/ejbca/publicweb/cmp/cmpRA",
		"issuerDN":       cmp.DirectoryName(authority.Issuing().RawSubject).String(),
		"authentication": map[string]string{"iak": ejbcaSecret, "rv": "RA"}, "trustAnchors": root,
	}
	maps.Copy(entry, changes)
	for name, value := range entry {
		if value == nil {
			delete(entry, name)
		}
	}
	s, err := stack.StartService(binDir, dir, entry)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("certservice logged:\n%s", s.CertService.Logged())
		}
	})
	return &estate{authority, t, s}
}

func pemOf(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// sidecar runs a certfetcher; later variables take the place of earlier ones.
func (e *estate) sidecar(variables ...string) *sidecar {
	e.t.Helper()
	volume := filepath.Join(e.t.TempDir(), "volume")
	return run(e.t, volume, append(environment(e.stack.URL, e.stack.Dir, volume), variables...))
}

// leaf is the certificate on the volume.
func (e *estate) leaf(p *sidecar) *x509.Certificate {
	e.t.Helper()
	content, err := os.ReadFile(filepath.Join(p.volume, "keystore.pem"))
	require.NoError(e.t, err)
	block, _ := pem.Decode(content)
	require.NotNil(e.t, block)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(e.t, err)
	return cert
}

func (e *estate) assertNoSecret(p *sidecar) {
	e.t.Helper()
	assert.NotContains(e.t, e.stack.CertService.Logged()+p.text(), ejbcaSecret)
}

// The way that docs/interoperability.md shows: the root as anchor, requests under the secret, updates by signature.
func TestEJBCA_raMode_enrolsAndUpdates(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]ejbca.Config{
		"root":                  {},
		"sub-CA":                {SubCA: true, Subject: "CN=Sub CA,O=Example"},
		"answers by MAC":        {PBE: true},
		"the profile of ONAP":   {CertificateProfile: ejbca.Custom, RequiredFields: []string{"STATEORPROVINCE", "ORGANIZATION"}},
		"secret asked first":    {Modules: ejbca.SecretFirst},
		"extensions overridden": {AllowOverride: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := withEJBCA(t, config, nil)
			p := e.sidecar("OUTPUT_TYPE=PEM")
			p.await(1, planned)
			first := e.leaf(p)
			assert.Equal(t, []string{"localhost"}, first.DNSNames)

			p.renew()
			p.await(1, updated)
			p.await(2, planned)

			second := e.leaf(p)
			assert.NotEqual(t, first.SerialNumber, second.SerialNumber)
			assert.NotEqual(t, first.PublicKey, second.PublicKey)
			assert.Equal(t, first.RawSubject, second.RawSubject)
			assert.Zero(t, p.count(anew))
			require.Len(t, e.Requests(cmp.BodyKUR), 1)
			assert.True(t, bytes.Equal(first.Raw, e.Requests(cmp.BodyKUR)[0].ExtraCerts[0]))
			e.assertNoSecret(p)
		})
	}
}

// Without a role, or with the end entity profile EMPTY, EJBCA refuses updates; the sidecar says why and enrols anew.
func TestEJBCA_updatesNotAllowed_enrolAnew(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]ejbca.Config{
		"no role":              {NoRole: true},
		"another organization": {UpdatesFor: "Another"},
		"end entity profile":   {EndEntityProfile: ejbca.EMPTY},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := withEJBCA(t, config, nil)
			p := e.sidecar()
			p.await(1, planned)
			p.renew()
			reason := p.await(1, anew).text("error")
			assert.Contains(t, reason, "'CN=app.example.org,O=Example,ST=Skane,C=SE' is not an authorized administrator.")
			p.await(2, planned)
			assert.Len(t, e.Issued(), 2)
		})
	}
}

// fails runs certfetcher once, which fails with the exit code, and returns its log.
func (e *estate) fails(code int, variables ...string) string {
	e.t.Helper()
	p := e.sidecar(append([]string{"MODE=init"}, variables...)...)
	p.awaitExit(code)
	e.assertNoSecret(p)
	return p.text()
}

// awaitExit waits for the end of the program.
func (p *sidecar) awaitExit(code int) {
	p.t.Helper()
	<-p.ended
	assert.Equal(p.t, code, p.cmd.ProcessState.ExitCode())
}

// What EJBCA says reaches whoever reads the log of the client.
func TestEJBCA_refusals_areShown(t *testing.T) {
	t.Parallel()
	anotherSecret := map[string]any{"authentication": map[string]string{"iak": "another", "rv": "RA"}}
	for name, row := range map[string]struct {
		config  ejbca.Config
		changes map[string]any
		want    string
	}{
		"wrong secret, certificates first": {ejbca.Config{}, anotherSecret,
			"Failed to verify message using both Global Shared Secret and CMP RA Authentication Secret"},
		"wrong secret, secret first": {ejbca.Config{Modules: ejbca.SecretFirst}, anotherSecret,
			"Error while reading a certificate from the extraCert field"},
		"a field that the profile wants": {ejbca.Config{RequiredFields: []string{"LOCALITY"}}, nil,
			"Subject DN field 'LOCALITY' must exist."},
		"no such profile": {ejbca.Config{CertificateProfile: ejbca.KeyID}, nil, "No certificate profile found with name: RA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := withEJBCA(t, row.config, row.changes)
			assert.Contains(t, e.fails(5), row.want)
			assert.Empty(t, e.Issued())
		})
	}
}

// A CA whose token has a password that was not kept is offline after a restart.
func TestEJBCA_caOffline_isShown(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{}, nil)
	e.TakeOffline()
	assert.Contains(t, e.fails(5), "signsession.canotactive, CN=Test CA,O=Example")
}

// In client mode each password is good for one certificate. One alias takes ir and kur with the modules in the order
// HMAC;EndEntityCertificate.
func TestEJBCA_clientMode_updatesAndSpendsThePassword(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{Modules: ejbca.SecretFirst, Passwords: passwords, CertificateProfile: ejbca.Custom}, nil)
	p := e.sidecar()
	p.await(1, planned)
	p.renew()
	p.await(1, updated)
	p.await(2, planned)
	assert.Equal(t, 1, len(e.Requests(cmp.BodyIR)))
	assert.Equal(t, 1, len(e.Requests(cmp.BodyKUR)))

	// Another volume begins with ir.
	assert.Contains(t, e.fails(5), "Error while reading a certificate from the extraCert field")
}

// With responseprotection pbe EJBCA signs answers to signed requests all the same, and in client mode certificates.
// The anchors of certservice are what they are checked with.
func TestEJBCA_pbe_needsAnchorsAllTheSame(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{PBE: true, Passwords: passwords}, map[string]any{"trustAnchors": nil})
	text := e.fails(5)
	assert.Contains(t, text, "set trustAnchors to its root")
	assert.NotEmpty(t, e.Issued(), "EJBCA has issued it, and signed the answer")

	e = withEJBCA(t, ejbca.Config{PBE: true, Passwords: passwords}, nil)
	p := e.sidecar()
	p.await(1, planned)
	e.assertNoSecret(p)
}

// With extension override allowed in the certificate profile, holders of one subject update with their own names.
func TestEJBCA_namesOfAnotherHolder_overrideAllowed_updates(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{AllowOverride: true}, nil)
	first := e.sidecar("SANS=sts-0.example.org", "OUTPUT_TYPE=PEM")
	first.await(1, planned)
	e.sidecar("SANS=sts-1.example.org").await(1, planned)
	first.renew()
	first.await(1, updated)
	first.await(2, planned)
	assert.Equal(t, []string{"sts-0.example.org"}, e.leaf(first).DNSNames)
}

// Updates of one subject at the same time fail for some with a page; they are tried again soon.
func TestEJBCA_transactionThatFails_isTriedAgain(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{}, nil)
	p := e.sidecar()
	p.await(1, planned)
	e.FailTransactions(1)
	p.renew()
	p.await(1, updated)
	p.await(2, planned)
	assert.Zero(t, p.count(anew))
	assert.Len(t, e.Issued(), 2)
}
