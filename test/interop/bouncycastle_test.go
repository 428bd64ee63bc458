package interop

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestClient_bouncyCastleResponder_enrols(t *testing.T) {
	t.Parallel()
	m := newMatrix(t, "our client, Bouncy Castle responder", "ir", "cr", "kur")
	peer := fixture.StartBouncyCastle(t)
	base := cmp.Config{URL: peer.URL, Recipient: "CN=Bouncy Castle CA", Secret: []byte(secret),
		Reference: reference, TrustAnchors: []*x509.Certificate{peer.Root}}
	first := func(algorithm string) *cmp.Signer {
		client, _ := newClient(t, base)
		r := newRequestWith(keyOf(algorithm, "old"), "leaf")
		result, err := client.Initialize(t.Context(), r)
		require.NoError(t, err)
		return identity{r.Key, result.Chain}.signer()
	}
	for _, row := range []struct {
		name       string
		algorithm  string
		protection cmp.Protection
		path       string
	}{
		{"PBM SHA-256 / PBM SHA-256", "ECDSA-P256", cmp.ProtectionPBMSHA256, ""},
		{"PBM SHA-1 / PBM SHA-1", "RSA-2048", cmp.ProtectionPBMSHA1, ""},
		{"PBMAC1 / PBMAC1", "ECDSA-P384", cmp.ProtectionPBMAC1, ""},
		{"PBMAC1 / PBMAC1 with 262,144 iterations", "ECDSA-P256", cmp.ProtectionPBMAC1, "/many-iterations"},
		{"PBM SHA-256 / PBM SHA-256, pkiConf delayed", "ECDSA-P256", cmp.ProtectionPBMSHA256, "/delayed"},
		{"PBM SHA-256 / ECDSA P-256", "ECDSA-P256", cmp.ProtectionPBMSHA256, "/signed"},
		{"RSA / ECDSA P-256", "RSA-2048", cmp.ProtectionSignature, ""},
		{"ECDSA P-384 / ECDSA P-256", "ECDSA-P384", cmp.ProtectionSignature, ""},
		{"Ed25519 / ECDSA P-256", "Ed25519", cmp.ProtectionSignature, ""},
	} {
		signer, r := first(row.algorithm), newRequest(row.algorithm, "leaf")
		for _, operation := range m.columns {
			if operation == "kur" && row.protection != cmp.ProtectionSignature {
				continue // always signed with the old key
			}
			if operation != "ir" && row.path == "/many-iterations" {
				continue // it takes seconds
			}
			ways := map[string]string{explicit: sequel[explicit], implicit: sequel[implicit]}
			if row.path == "/delayed" {
				ways = map[string]string{explicit: " certConf pollReq"}
			}
			for how, sequel := range ways {
				m.run(t, row.name, operation, how, func(t *testing.T) {
					config := base
					config.URL, config.Protection, config.ImplicitConfirm = peer.URL+row.path,
						row.protection, how == implicit
					if row.protection == cmp.ProtectionSignature {
						config.Signer = signer
					}
					client, messages := newClient(t, config)

					result, err := request(t, client, operation, r, signer)

					require.NoError(t, err)
					assertIssued(t, result, r, peer.Root)
					assert.Equal(t, operation+sequel, kinds(messages.requests))
					assertProtected(t, row.protection != cmp.ProtectionSignature, messages.requests)
					assertProtected(t, row.protection != cmp.ProtectionSignature && row.path != "/signed",
						messages.answers)
				})
			}
		}
	}
}

func TestDevCA_bouncyCastleClient_isServed(t *testing.T) {
	t.Parallel()
	m := newMatrix(t, "Bouncy Castle client, devca", "ir", "cr", "p10cr", "kur", "rr")
	d := startDevCA(t, devca.Config{})
	peer := fixture.StartBouncyCastle(t)
	fixture.Must(fmt.Fprintln(peer.Requests, d.url+"/pkix/", reference, d.root))
	outcomes := map[string]string{}
	for peer.Lines.Scan() && peer.Lines.Text() != "end" {
		fields := strings.SplitN(peer.Lines.Text(), "\t", 5)
		require.GreaterOrEqual(t, len(fields), 4, peer.Lines.Text())
		outcomes[strings.Join(fields[1:4], " ")] = strings.Join(append(fields[:1:1], fields[4:]...), ": ")
	}

	attempts := 0
	for _, row := range []struct {
		protection, answer string
		operations         []string
	}{
		{"PBM SHA-256", "PBM SHA-256", []string{"ir", "cr", "p10cr"}},
		{"PBM SHA-1", "PBM SHA-1", []string{"ir", "cr", "p10cr"}},
		{"PBMAC1", "PBMAC1", []string{"ir", "cr", "p10cr"}},
		{"RSA", "ECDSA P-256", []string{"ir", "cr", "p10cr", "kur"}},
		{"ECDSA P-256", "ECDSA P-256", []string{"ir", "cr", "p10cr", "kur"}},
		{"Ed25519", "ECDSA P-256", []string{"ir", "cr", "p10cr", "kur"}},
	} {
		attempt := func(operation, how string) {
			attempts++
			m.run(t, row.protection+" / "+row.answer, operation, how, func(t *testing.T) {
				assert.Equal(t, "passed", outcomes[row.protection+" "+operation+" "+how])
			})
		}
		for _, operation := range row.operations {
			attempt(operation, explicit)
			attempt(operation, implicit)
		}
		attempt("rr", done)
	}
	assert.Len(t, outcomes, attempts)
	stats := d.Stats()
	assert.Equal(t, stats.Issued, stats.Confirmed)
	assert.Equal(t, uint64(6), stats.Revoked)
	assert.Equal(t, uint64(6), stats.Updated)
	assert.Zero(t, stats.Rejected+stats.Errors)
}

func readCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(fixture.Must(os.ReadFile(path)))
	require.NotNil(t, block, path)
	return fixture.Must(x509.ParseCertificate(block.Bytes))
}
