package interop

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// jars are where Debian installs Bouncy Castle, by its packages.
var jars = map[string]string{
	"libbcpkix-java": "/usr/share/java/bcpkix.jar", "libbcprov-java": "/usr/share/java/bcprov.jar",
	"libbcutil-java": "/usr/share/java/bcutil.jar",
}

// bouncyCastle prepares our program over Bouncy Castle.
func bouncyCastle(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	var path []string
	for debian, jar := range jars {
		if _, err := os.Stat(jar); err != nil {
			fixture.SkipWithout(t, "Bouncy Castle ("+debian+")")
		}
		path = append(path, jar)
	}
	return fixture.Java(t, strings.Join(path, ":"), "java/BouncyCastlePeer.java", args...)
}

func TestClient_bouncyCastleResponder_enrols(t *testing.T) {
	m := newMatrix(t, "our client, Bouncy Castle responder", "ir", "cr", "kur")
	rootFile := filepath.Join(t.TempDir(), "root.pem")
	command := bouncyCastle(t, "respond", secret, rootFile)
	_, err := command.StdinPipe() // the responder ends with it, even if this process is killed
	require.NoError(t, err)
	url := "http://127.0.0.1:" + startServer(t, command, regexp.MustCompile(`^listening (\d+)$`))
	root := readCertificate(t, rootFile)

	base := cmp.Config{URL: url, Recipient: "CN=Bouncy Castle CA", Secret: []byte(secret),
		Reference: reference, TrustAnchors: []*x509.Certificate{root}}
	first := func(algorithm string) *cmp.Signer {
		client, _ := newClient(t, base)
		r := newRequestWith(t, keyOf(t, algorithm, "old"), "leaf")
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
		signer, r := first(row.algorithm), newRequest(t, row.algorithm, "leaf")
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
					config.URL, config.Protection, config.ImplicitConfirm = url+row.path,
						row.protection, how == implicit
					if row.protection == cmp.ProtectionSignature {
						config.Signer = signer
					}
					client, messages := newClient(t, config)

					result, err := request(t, client, operation, r, signer)

					require.NoError(t, err)
					assertIssued(t, result, r, root)
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
	m := newMatrix(t, "Bouncy Castle client, devca", "ir", "cr", "p10cr", "kur", "rr")
	d := startDevCA(t, devca.Config{})
	command := bouncyCastle(t, "request", d.url+"/pkix/", reference, secret, d.root)
	var errors strings.Builder
	command.Stderr = &errors
	output, err := command.Output()
	require.NoError(t, err, errors.String())
	outcomes := map[string]string{}
	for line := range strings.Lines(string(output)) {
		outcome, attempt, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		require.True(t, found, line)
		fields := strings.SplitN(attempt, "\t", 4)
		require.GreaterOrEqual(t, len(fields), 3, line)
		outcomes[strings.Join(fields[:3], " ")] = strings.Join(append([]string{outcome}, fields[3:]...), ": ")
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
	if t.Failed() {
		t.Log(errors.String())
	}
}

func readCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	text := fixture.Must(os.ReadFile(path))
	block, _ := pem.Decode(text)
	require.NotNil(t, block, path)
	certificate := fixture.Must(x509.ParseCertificate(block.Bytes))
	return certificate
}
