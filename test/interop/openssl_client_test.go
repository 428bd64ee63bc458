package interop

import (
	"crypto/x509"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// issuerName is how the development CA's issuer is written in configuration.
const issuerName = "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY"

// bySecret are the options to protect requests with the shared secret.
const bySecret = "-recipient /CN=CA -ref " + reference + " -secret pass:" + secret

// devCA is a development CA on loopback, with the files that its clients need.
type devCA struct {
	*devca.CA
	url, dir, root string
}

func startDevCA(t testing.TB, config devca.Config) *devCA {
	t.Helper()
	config.Reference, config.Secret = reference, []byte(secret)
	authority := fixture.Must(devca.New(config))
	server := httptest.NewServer(authority)
	t.Cleanup(server.Close)
	d := &devCA{CA: authority, url: server.URL, dir: t.TempDir()}
	d.root = writeFile(t, d.dir, "root.pem", authority.RootPEM())
	return d
}

// enrol gets a certificate by our own client, for others to go on with.
func (d *devCA) enrol(t testing.TB, algorithm string) identity {
	t.Helper()
	client, _ := newClient(t, cmp.Config{URL: d.url, Recipient: issuerName, Secret: []byte(secret),
		Reference: reference, TrustAnchors: []*x509.Certificate{d.Root()}})
	r := newRequestWith(keyOf(algorithm, "old"), "leaf")
	result, err := client.Initialize(t.Context(), r)
	require.NoError(t, err)
	return identity{r.Key, result.Chain}
}

// openssl runs openssl cmp as client of the CA and returns what it wrote. Options are separated by blanks.
func (d *devCA) openssl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	all := "-msg_timeout 10 -path pkix/ -server " + strings.TrimPrefix(d.url, "http://") + " -trusted " + d.root
	output, err := opensslCommand(t, add(strings.Fields(all), strings.Join(args, " "))...).CombinedOutput()
	return string(output), err
}

func TestDevCA_opensslClient_isServed(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	m := newMatrix(t, "openssl client, devca", "ir", "cr", "p10cr", "kur", "rr", "genm")
	for _, row := range []struct {
		name      string
		algorithm string
		mac       string // options; "": requests are signed
		respond   devca.ResponseProtection
		polled    bool
	}{
		{"PBM SHA-256 with HMAC-SHA1 / PBM", "ECDSA-P256", bySecret, devca.RespondMAC, true},
		{"PBM SHA-256 with HMAC-SHA256 / PBM", "RSA-2048", bySecret + " -mac hmacWithSHA256",
			devca.RespondMAC, false},
		{"PBM SHA-1 with HMAC-SHA1 / PBM", "ECDSA-P256", bySecret + " -digest sha1", devca.RespondMAC, false},
		{"PBM SHA-256 with HMAC-SHA1 / ECDSA P-256", "ECDSA-P256", bySecret, devca.RespondSignature, false},
		{"RSA / ECDSA P-256", "RSA-2048", "", devca.RespondMAC, false},
		{"ECDSA P-256 / ECDSA P-256", "ECDSA-P256", "", devca.RespondMAC, true},
		{"ECDSA P-521 / ECDSA P-256", "ECDSA-P521", "", devca.RespondMAC, false},
	} {
		for _, operation := range m.columns {
			ways := []string{explicit, implicit, polled}
			switch {
			case operation == "rr" || operation == "genm":
				ways = []string{done}
			case operation == "kur" && row.mac != "":
				continue // the CA takes kur only under the old certificate's signature
			case strings.Contains(row.mac, "sha1") && operation != "p10cr":
				continue // the CA refuses a proof of possession with SHA-1
			case !row.polled:
				ways = ways[:2]
			}
			for _, how := range ways {
				m.run(t, row.name, operation, how, func(t *testing.T) {
					t.Parallel()
					d := startDevCA(t, devca.Config{ResponseProtection: row.respond})
					old := d.enrol(t, row.algorithm)
					before := d.Stats()
					if how == polled {
						d.SetFaults(devca.Faults{Waiting: 1})
					}
					oldPEM := writePEM(t, d.dir, "old.pem", old.chain...)
					args := row.mac + " -cmd " + operation
					if row.mac == "" {
						args += " -cert " + oldPEM + " -key " + writeKey(t, d.dir, "old.key", old.key)
					}
					if how == implicit {
						args += " -implicit_confirm"
					}

					switch operation {
					case "rr":
						serial := old.chain[0].SerialNumber
						require.False(t, d.Revoked(serial))
						output, err := d.openssl(t, args, "-revreason 4 -oldcert", oldPEM)
						require.NoError(t, err, output)
						assert.True(t, d.Revoked(serial))
					case "genm":
						output, err := d.openssl(t, args, "-infotype caCerts")
						require.NoError(t, err, output)
						assert.Contains(t, output, "id-it-caCerts")
					default:
						d.issue(t, row.algorithm, operation, how, before, args)
					}
				})
			}
		}
	}
}

// issue has openssl request a certificate and looks at what it wrote.
func (d *devCA) issue(t *testing.T, algorithm, operation, how string, before devca.Stats, args string) {
	r := newRequest(algorithm, "leaf")
	out := filepath.Join(d.dir, "out.pem")
	if operation == "p10cr" {
		args += " -csr " + writeFile(t, d.dir, "request.pem", keygen.CSRPEM(r.CSR))
	} else {
		args += " -subject /O=Interop/CN=leaf -sans leaf.example.org,alias.example.org -newkey " +
			writeKey(t, d.dir, "new.key", r.Key)
	}

	output, err := d.openssl(t, args, "-certout", out)

	require.NoError(t, err, output)
	assertIssued(t, cmp.Result{Chain: []*x509.Certificate{readCertificate(t, out), d.Issuing()},
		Trusted: []*x509.Certificate{d.Root()}}, r, d.Root())
	after := d.Stats()
	assert.Equal(t, before.Issued+1, after.Issued)
	assert.Equal(t, before.Confirmed+1, after.Confirmed)
	assert.Equal(t, before.Requests+map[string]uint64{explicit: 2, implicit: 1, polled: 4}[how], after.Requests)
}

// opensslSays is where openssl quotes a refusal, or says what it does not like itself. The words of the
// refusal are left to the CA's own tests.
var opensslSays = []*regexp.Regexp{
	regexp.MustCompile(`PKIStatus: (rejection); PKIFailureInfo: (\w+)`),
	regexp.MustCompile(`CMP error: (.*)`),
}

func opensslOutcome(output string) string {
	for _, says := range opensslSays {
		if match := says.FindStringSubmatch(output); match != nil {
			return strings.Join(match[1:], ", ")
		}
	}
	return output
}

func TestDevCA_opensslClient_isRefused(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	l := newList(t, "openssl client, devca refuses", "openssl cmp as client", "what it says")
	d := startDevCA(t, devca.Config{})
	r, old, other := newRequest("ECDSA-P256", "leaf"), d.enrol(t, "ECDSA-P256"), d.enrol(t, "ECDSA-P256")
	newKey, oldKey := writeKey(t, d.dir, "new.key", r.Key), writeKey(t, d.dir, "old.key", old.key)
	oldPEM, otherPEM := writePEM(t, d.dir, "old.pem", old.chain...), writePEM(t, d.dir, "other.pem", other.chain...)
	csr := writeFile(t, d.dir, "request.pem", keygen.CSRPEM(r.CSR))
	bySignature := "-cert " + oldPEM + " -key " + oldKey
	ask := " -cmd ir -subject /CN=leaf -newkey " + newKey
	update := " -cmd kur -newkey " + newKey + " -oldcert "
	none := devca.Faults{}
	for _, row := range []struct { // the document has what openssl says
		name, args string
		faults     devca.Faults
	}{
		{"has a wrong secret", ask + " -unprotected_errors -secret pass:another -ref " + reference, none},
		{"has a wrong reference", ask + " -unprotected_errors -ref another -secret pass:" + secret, none},
		{"does not protect its request",
			ask + " -unprotected_requests -unprotected_errors -recipient /CN=CA", none},
		{"proves possession with SHA-1", bySecret + ask + " -digest sha1", none},
		{"does not prove possession", bySecret + ask + " -popo -1", none},
		{"claims that an RA has verified possession", bySecret + ask + " -popo 0", none},
		{"updates a certificate by the shared secret", bySecret + update + oldPEM, none},
		{"updates another certificate than its own", bySignature + update + otherPEM, none},
		{"revokes another certificate than its own", bySignature + " -cmd rr -oldcert " + otherPEM, none},
		{"is rejected by a fault", bySecret + " -cmd p10cr -csr " + csr,
			devca.Faults{Reject: true, FailInfo: []cmp.FailureBit{cmp.FailBadTime}}},
		{"gets an error without protection by a fault", bySecret + ask, devca.Faults{Unprotected: true}},
		{"gets a wrong nonce by a fault", bySecret + ask, devca.Faults{Spoils: []string{"wrong-nonce"}}},
		{"gets a certificate for another key by a fault", bySecret + ask, devca.Faults{Spoils: []string{"wrong-key"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			d.SetFaults(row.faults)
			output, err := d.openssl(t, row.args, "-certout", filepath.Join(d.dir, "out.pem"))
			require.Error(t, err)
			l.add(t, row.name, opensslOutcome(output))
		})
	}
}
