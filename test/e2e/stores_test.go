package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func littleEndianUTF16(text []byte) []byte {
	out := []byte("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(string(text))) {
		out = binary.LittleEndian.AppendUint16(out, unit)
	}
	return out
}

// revocationList is that of a CA of its own.
var revocationList = sync.OnceValue(func() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "CRL"}, SubjectKeyId: []byte{1},
		KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1),
		NextUpdate: time.Now().Add(time.Hour)}, issuer, key)
	if err != nil {
		panic(err)
	}
	return der
})

// mangled are the ways in which PEM arrives.
func mangled(text []byte) map[string][]byte {
	s := string(text)
	flat := strings.TrimSpace(s)
	other := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return map[string][]byte{
		"byte order mark":     []byte("\ufeff" + s),
		"UTF-16":              littleEndianUTF16(text),
		"literal line breaks": []byte(strings.ReplaceAll(flat, "\n", `\n`)),
		"one line":            []byte(strings.ReplaceAll(flat, "\n", " ")),
		"CR alone":            []byte(strings.ReplaceAll(s, "\n", "\r")),
		"indented":            []byte("  " + strings.ReplaceAll(flat, "\n", "\n  ")),
		"white space ahead":   []byte("  " + s),
		"glued":               []byte(strings.ReplaceAll(s, "-----\n-----", "----------")),
		"further blocks": []byte(other("DH PARAMETERS", []byte{0x30, 0}) + s +
			other("X509 CRL", revocationList())),
		"old label":                 []byte(strings.ReplaceAll(s, " CERTIFICATE-", " X509 CERTIFICATE-")),
		"OpenSSL's trusted label":   []byte(strings.ReplaceAll(s, " CERTIFICATE-", " TRUSTED CERTIFICATE-")),
		"a damaged certificate too": []byte(s + "-----BEGIN CERTIFICATE-----\nMIIB\n"),
	}
}

// PEM is read in whatever way it arrives, and what others have mangled is put right by a merge into it.
func TestStores_mangledPEM_isReadAndRepaired(t *testing.T) {
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	s, other := start(t), start(t)
	read := func(name string) map[string][]byte {
		data := fixture.Must(os.ReadFile(filepath.Join(s.Dir, name)))
		return mangled(data)
	}
	keys, roots := read("client.pem"), read("truststore.pem")
	added := filepath.Join(other.Dir, "truststore.pem")
	for kind := range keys {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			key, base := filepath.Join(dir, "key"), filepath.Join(dir, "base")
			require.NoError(t, os.WriteFile(key, keys[kind], 0o600))
			require.NoError(t, os.WriteFile(base, roots[kind], 0o600))
			damaged := kind == "a damaged certificate too"
			run := func(args []string, environment ...string) string {
				code, out := runs(t, s, filepath.Join(dir, "volume"), args, environment...)
				require.Equal(t, 0, code, out)
				return out
			}
			out := run(nil, "KEYSTORE_PATH="+key, "TRUSTSTORE_PATH="+base, "KEYSTORE_PASSWORD=", "TRUSTSTORE_PASSWORD=")
			if damaged {
				assert.Equal(t, 2, strings.Count(out,
					"it has no END line: the file was cut short, or lines are missing; it is skipped"), out)
			}
			out = run([]string{"postprocess"}, "TRUSTSTORES_PATHS="+base+":"+added, "TRUSTSTORES_PASSWORDS_PATHS=:")
			if damaged {
				assert.Contains(t, out, "it is skipped")
				return // it keeps its bytes
			}
			shown, err := exec.Command("sh", "-c",
				openssl+" crl2pkcs7 -nocrl -certfile '"+base+"' | "+openssl+
					" pkcs7 -print_certs -noout").CombinedOutput()
			require.NoError(t, err, string(shown))
			assert.Equal(t, 2, strings.Count(string(shown), "subject="), string(shown))
		})
	}
}
