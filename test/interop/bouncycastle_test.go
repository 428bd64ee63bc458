package interop

import (
	"bufio"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
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

// bouncyCastle is our program over Bouncy Castle. All tests have the same, which ends with the test program.
type bouncyCastle struct {
	url      string
	root     *x509.Certificate
	requests io.Writer
	lines    *bufio.Scanner
}

var (
	startPeer sync.Once
	peer      bouncyCastle
)

func bouncyCastlePeer(t testing.TB) bouncyCastle {
	t.Helper()
	var path []string
	for debian, jar := range jars {
		if _, err := os.Stat(jar); err != nil {
			fixture.SkipWithout(t, "Bouncy Castle ("+debian+")")
		}
		path = append(path, jar)
	}
	startPeer.Do(func() {
		command := fixture.Java(t, strings.Join(path, ":"), "java/BouncyCastlePeer.java", secret)
		command.Stderr = os.Stderr
		peer.requests = fixture.Must(command.StdinPipe())
		peer.lines = bufio.NewScanner(fixture.Must(command.StdoutPipe()))
		require.NoError(t, command.Start())
		require.True(t, peer.lines.Scan(), "Bouncy Castle ended")
		words := strings.Fields(peer.lines.Text()) // "listening", the port, and the root
		require.Len(t, words, 3)
		peer.url = "http://127.0.0.1:" + words[1]
		peer.root = fixture.Must(x509.ParseCertificate(fixture.Must(base64.StdEncoding.DecodeString(words[2]))))
	})
	require.NotNil(t, peer.root, "Bouncy Castle did not start")
	return peer
}

func TestClient_bouncyCastleResponder_enrols(t *testing.T) {
	t.Parallel()
	m := newMatrix(t, "our client, Bouncy Castle responder", "ir", "cr", "kur")
	peer := bouncyCastlePeer(t)
	base := cmp.Config{URL: peer.url, Recipient: "CN=Bouncy Castle CA", Secret: []byte(secret),
		Reference: reference, TrustAnchors: []*x509.Certificate{peer.root}}
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
					config.URL, config.Protection, config.ImplicitConfirm = peer.url+row.path,
						row.protection, how == implicit
					if row.protection == cmp.ProtectionSignature {
						config.Signer = signer
					}
					client, messages := newClient(t, config)

					result, err := request(t, client, operation, r, signer)

					require.NoError(t, err)
					assertIssued(t, result, r, peer.root)
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
	peer := bouncyCastlePeer(t)
	fixture.Must(fmt.Fprintln(peer.requests, d.url+"/pkix/", reference, d.root))
	outcomes := map[string]string{}
	for peer.lines.Scan() && peer.lines.Text() != "end" {
		fields := strings.SplitN(peer.lines.Text(), "\t", 5)
		require.GreaterOrEqual(t, len(fields), 4, peer.lines.Text())
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
