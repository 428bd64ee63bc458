package interop

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const serverName = "CMP server"

// opensslServer is what an openssl server and a client of it are configured with.
type opensslServer struct {
	authority *fixture.CA
	signer    identity // of signed answers
	old       identity // the client's certificate, which signs requests and is to be updated
	request   cmp.Request

	// Options for the shared secret; for signing answers; for believing signed requests; and for the
	// certificate that is the answer to whatever is asked.
	bySecret, signing, believing, returning []string
}

func newOpenSSLServer(t testing.TB, algorithm, clientAlgorithm string) *opensslServer {
	t.Helper()
	dir := t.TempDir()
	s := &opensslServer{authority: fixture.Must(fixture.NewCA("Interop"))}
	s.signer = newIdentity(s.authority, algorithm, serverName)
	s.old = newIdentity(s.authority, clientAlgorithm, "leaf")
	s.request = newRequest(clientAlgorithm, "leaf")
	issued := sameSerial(s.authority, s.old.chain[0], s.request.Key.Public())
	root, issuing := writePEM(t, dir, "root.pem", s.authority.Root),
		writePEM(t, dir, "issuing.pem", s.authority.Issuing)
	s.bySecret = []string{"-srv_ref", reference, "-srv_secret", "pass:" + secret}
	s.signing = signing(t, s.signer, issuing)
	s.believing = []string{"-srv_trusted", root}
	s.returning = []string{"-rsp_cert", writePEM(t, dir, "issued.pem", issued), "-rsp_extracerts",
		issuing, "-rsp_capubs", root}
	return s
}

// signing are the options for answers signed by an identity, whose chain is in a file.
func signing(t testing.TB, signer identity, untrusted string) []string {
	dir := t.TempDir()
	return []string{
		"-srv_cert", writePEM(t, dir, "server.pem", signer.chain...), "-srv_key",
		writeKey(t, dir, "server.key", signer.key),
		"-srv_untrusted", untrusted, // for the chain to be sent along
	}
}

// changed makes an identity under the server's name, with a certificate that is changed before it is signed.
func changed(authority *fixture.CA, change func(leaf *x509.Certificate)) identity {
	authority.Change = change
	defer func() { authority.Change = nil }()
	return newIdentity(authority, "ECDSA-P256", serverName)
}

// sameSerial certifies a key under a serial number in use: the server compares oldCertID with the
// certificate that it is going to return, not with one that it returned before.
func sameSerial(ca *fixture.CA, old *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	der := fixture.Must(x509.CreateCertificate(rand.Reader, old, ca.Issuing, key, ca.IssuingKey))
	return fixture.Must(x509.ParseCertificate(der))
}

// client configures a client for the server: with the shared secret, or to sign.
func (s *opensslServer) client(url string, protection cmp.Protection) cmp.Config {
	config := cmp.Config{
		URL: url, Recipient: "CN=" + serverName + ",O=Interop", Protection: protection,
		TrustAnchors: []*x509.Certificate{s.authority.Root}, MessageTimeout: 10 * time.Second,
	}
	if protection == cmp.ProtectionSignature {
		config.Signer = s.old.signer()
	} else {
		config.Secret, config.Reference = []byte(secret), reference
	}
	return config
}

// confirming are the server's options for each way to confirm.
var confirming = map[string]string{
	implicit: "-grant_implicitconf", polled: "-poll_count 2 -check_after 1",
}

// sequel are the requests that follow the first.
var sequel = map[string]string{explicit: " certConf", implicit: "", polled: " pollReq pollReq certConf"}

// byReference is the row in which the sender is named after the secret (RFC 9483, 3.1).
const byReference = "PBM SHA-256 with the reference as sender / PBM"

func TestClient_opensslServer_enrols(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	m := newMatrix(t, "our client, openssl server", "ir", "cr", "kur", "rr")
	for _, row := range []struct {
		name       string
		client     string // algorithm of the client's keys
		server     string
		protection cmp.Protection
		signed     bool // answers to MAC-protected requests
		polled     bool
	}{
		{"PBM SHA-256 / PBM", "ECDSA-P256", "ECDSA-P256", cmp.ProtectionPBMSHA256, false, true},
		{byReference, "ECDSA-P256", "ECDSA-P256", cmp.ProtectionPBMSHA256, false, false},
		{"PBM SHA-1 / PBM", "ECDSA-P256", "ECDSA-P256", cmp.ProtectionPBMSHA1, false, false},
		{"PBM SHA-256 / ECDSA P-256", "ECDSA-P256", "ECDSA-P256", cmp.ProtectionPBMSHA256, true, false},
		{"RSA / RSA", "RSA-2048", "RSA-2048", cmp.ProtectionSignature, false, false},
		{"ECDSA P-256 / ECDSA P-256", "ECDSA-P256", "ECDSA-P256", cmp.ProtectionSignature, false, true},
		{"ECDSA P-384 / RSA", "ECDSA-P384", "RSA-2048", cmp.ProtectionSignature, false, false},
		// OpenSSL 3.0 verifies signatures of messages by Ed25519, and cannot make them.
		{"Ed25519 / ECDSA P-256", "Ed25519", "ECDSA-P256", cmp.ProtectionSignature, false, false},
	} {
		s := newOpenSSLServer(t, row.server, row.client)
		args := s.bySecret
		switch {
		case row.signed: // the server answers in kind, unless it does not look at the request's protection
			args = append(slices.Clone(s.signing), "-accept_unprotected")
		case row.protection == cmp.ProtectionSignature:
			args = slices.Concat(s.signing, s.believing)
		}
		args = slices.Concat(s.returning, args)
		assertProtection := func(t *testing.T, messages *exchanges) {
			assertProtected(t, row.protection != cmp.ProtectionSignature, messages.requests)
			assertProtected(t, row.protection != cmp.ProtectionSignature && !row.signed, messages.answers)
		}
		m.run(t, row.name, "rr", done, func(t *testing.T) {
			t.Parallel()
			url := startOpenSSL(t, args...)
			client, messages := newClient(t, s.client(url, row.protection))
			require.NoError(t, client.Revoke(t.Context(), s.old.chain[0]))
			assertProtection(t, messages)
		})
		for _, operation := range []string{"ir", "cr", "kur"} {
			for _, how := range []string{explicit, implicit, polled} {
				if operation == "kur" && row.protection != cmp.ProtectionSignature || how == polled && !row.polled {
					continue // kur is always signed, with the old key
				}
				m.run(t, row.name, operation, how, func(t *testing.T) {
					t.Parallel()
					url := startOpenSSL(t, add(args, confirming[how])...)
					config := s.client(url+"/pkix/", row.protection)
					config.ImplicitConfirm, config.SenderReference = how == implicit, row.name == byReference
					client, messages := newClient(t, config)

					result, err := request(t, client, operation, s.request, s.old.signer())

					require.NoError(t, err)
					assertIssued(t, result, s.request, s.authority.Root)
					assert.Equal(t, operation+sequel[how], kinds(messages.requests))
					assertProtection(t, messages)
				})
			}
		}
	}
}

// told is what the server is made to say. Its own words change with its version.
const told = "not today"

// taken is the outcome of a request that brings a certificate.
const taken = "the certificate is taken"

// unverified is the reason that the standard library gives, which is not ours to hold.
var unverified = regexp.MustCompile(`does not verify \(.*\), want`)

// outcome words an error without what other people's programs say in it.
func outcome(err error) string {
	if err == nil {
		return taken
	}
	if refused, ok := errors.AsType[*cmp.StatusError](err); ok && refused.Text != told {
		known := *refused
		known.Text = "…"
		return known.Error()
	}
	return unverified.ReplaceAllString(err.Error(), "does not verify (…), want")
}

// add adds options, separated by blanks.
func add(args []string, more string) []string { return slices.Concat(args, strings.Fields(more)) }

func TestClient_opensslServer_misbehaves(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	l := newList(t, "our client, openssl server misbehaves", "openssl cmp as server", "messages",
		"what our client says")
	s, other := newOpenSSLServer(t, "ECDSA-P256", "ECDSA-P256"), newOpenSSLServer(t, "ECDSA-P256", "ECDSA-P256")
	mac := slices.Concat(s.returning, s.bySecret, []string{"-statusstring", told})
	signed := slices.Concat(s.returning, s.signing, s.believing, []string{"-statusstring", told})
	issuing := writePEM(t, t.TempDir(), "issuing.pem", s.authority.Issuing)
	certifier := changed(s.authority, func(leaf *x509.Certificate) {
		leaf.IsCA, leaf.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	})
	byCertifier := slices.Concat(s.returning, s.believing, signing(t, certifier, issuing))
	ra := changed(s.authority, func(leaf *x509.Certificate) { // it speaks for a CA (RFC 9810, 4.5)
		leaf.ExtKeyUsage, leaf.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}
	})
	byRA := slices.Concat(s.returning, s.believing, signing(t, ra, issuing))
	expectRA := func(c *cmp.Config) { c.Recipient, c.SignerDN = "CN=CA", "CN="+serverName+",O=Interop" }
	for _, row := range []struct { // the document has what comes of them
		name    string
		args    []string
		protect cmp.Protection
		change  func(*cmp.Config)
	}{
		{"rejects", add(mac, "-pkistatus 2 -failure 2"), "", nil},
		{"rejects, for several reasons", add(mac, "-pkistatus 2 -failurebits 517"), "", nil},
		{"rejects, with a signature", add(signed, "-pkistatus 2 -failure 9"), cmp.ProtectionSignature, nil},
		{"rejects, without protection", add(mac, "-pkistatus 2 -failure 2 -send_unprot_err"), "", nil},
		{"answers with error", add(mac, "-send_error"), "", nil},
		{"answers with error, without protection", add(mac, "-send_error -send_unprot_err"), "", nil},
		{"issues without protection", add(mac, "-send_unprotected"), "", nil},
		{"issues with modifications", add(mac, "-pkistatus 1"), "", nil},
		{"issues with a warning instead of accepting", add(mac, "-pkistatus 4"), "", nil},
		{"issues for another key", slices.Concat(other.returning, s.bySecret), "", nil},
		{"has another secret", add(s.returning, "-srv_ref "+reference+" -srv_secret pass:another"), "", nil},
		{"does not know PBMAC1", mac, cmp.ProtectionPBMAC1, nil},
		{"does not trust the client's certificate",
			slices.Concat(s.returning, s.signing, other.believing), cmp.ProtectionSignature, nil},
		{"signs under a root that is not trusted",
			slices.Concat(s.returning, other.signing, s.believing), cmp.ProtectionSignature, nil},
		{"signs under another name", signed, cmp.ProtectionSignature,
			func(c *cmp.Config) { c.Recipient = "CN=CA" }},
		{"signs with a CA for certificates only", byCertifier, cmp.ProtectionSignature, nil},
		{"signs with a CA for certificates only, an anchor", byCertifier, cmp.ProtectionSignature,
			func(c *cmp.Config) { c.TrustAnchors = append(c.TrustAnchors, certifier.chain[0]) }},
		{"signs as an RA that is configured", byRA, cmp.ProtectionSignature, expectRA},
		{"signs as an RA that is configured, by a server's certificate", signed,
			cmp.ProtectionSignature, expectRA},
		{"answers a signature with a MAC", add(mac, "-accept_unprotected"), cmp.ProtectionSignature, nil},
		{"says to wait for an hour", add(mac, "-poll_count 9 -check_after 3600"), "", nil},
		{"says to wait, and cannot be polled", add(mac, "-pkistatus 3"), "", nil},
		{"has no such path", mac, "", func(c *cmp.Config) { c.URL += "/no/such/path" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			url := startOpenSSL(t, row.args...)
			config := s.client(url, row.protect)
			config.MaxPollWait = time.Minute
			if row.change != nil {
				row.change(&config)
			}
			client, messages := newClient(t, config)

			_, err := client.Initialize(t.Context(), s.request)

			if err != nil && strings.Contains(messages.String(), "certConf") {
				conf := messages.requests[1].Body.Content.(cmp.CertConfirmContent)
				assert.Equal(t, cmp.StatusRejection, conf[0].StatusInfo.Status)
			}
			l.add(t, row.name, messages.String(), outcome(err))
		})
	}
}
