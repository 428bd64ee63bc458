package certservice

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// A second implementation, OpenSSL, accepts the CSRs as well that authority.txt sends to a CA.
func TestOpenSSL_acceptsTheSameCSRs(t *testing.T) {
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	for _, name := range []string{"no-attributes", "underscore", "empty-extension-request"} {
		file := filepath.Join("..", "..", "test", "testdata", "requests", name+".pem")
		out, err := exec.Command(openssl, "req", "-in", file, "-noout", "-verify", "-subject").CombinedOutput()
		assert.NoError(t, err, string(out))
	}
}

// signedCSR makes a request whose content is changed before it is signed.
func signedCSR(t testing.TB, change func(tbs *csrParts)) []byte {
	t.Helper()
	key := newKey(t)
	p, ok := splitCSR(newCSR(t, key))
	require.True(t, ok)
	change(&p)
	tbs := derSequence(t, p.version, p.subject, p.spki, p.attributes)
	hash := sha256.Sum256(tbs)
	signature := must(key.Sign(rand.Reader, hash[:], nil))
	bits := must(asn1.Marshal(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}))
	return derSequence(t, tbs, p.algorithm, bits)
}

func derSequence(t testing.TB, parts ...[]byte) []byte {
	return must(asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(parts, nil)}))
}

func TestReadCSR_neighbours(t *testing.T) {
	wrap := func(tag byte, content []byte) []byte { return append([]byte{tag, byte(len(content))}, content...) }
	name := func(tag byte, text string) func(*csrParts) {
		attribute := derSequence(t, []byte{6, 3, 0x55, 4, 3}, wrap(tag, []byte(text)))
		return func(p *csrParts) { p.subject = derSequence(t, wrap(0x31, attribute)) }
	}
	san := func(tag byte, text string) func(*csrParts) {
		names := derSequence(t, wrap(tag, []byte(text)))
		extension := derSequence(t, []byte{6, 3, 0x55, 0x1d, 17}, wrap(4, names))
		extensionRequest := []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0xd, 1, 9, 14}
		request := derSequence(t, extensionRequest, wrap(0x31, derSequence(t, extension)))
		return func(p *csrParts) { p.attributes = wrap(0xa0, request) }
	}
	for _, row := range []struct {
		name   string
		change func(*csrParts)
		want   string // "" when it is accepted
	}{
		{"an at sign in a PrintableString", name(19, "a@b"), ""},
		{"an underscore, and no attributes", func(p *csrParts) { name(19, "_")(p); p.attributes = nil }, ""},
		{"Latin-1 in a PrintableString", name(19, "\xe5"),
			"has a subject that is not a name, or one with other characters than ASCII in a " +
				"PrintableString: want a UTF8String for such text"},
		{"broken UTF-8 in a UTF8String", name(12, "\xe5"), "is not a PKCS#10 request"},
		{"an e-mail address that is not ASCII", san(0x81, "å@x"),
			`asks for the e-mail address "å@x", which is not ASCII`},
		{"a URI that is not ASCII", san(0x86, "http://å"),
			`asks for the URI "http://å", which is not ASCII, want it percent-encoded`},
		{"a URI that does not parse", san(0x86, "http://%zz"), `asks for the URI "http://%zz", which cannot be parsed`},
		{"an empty address", san(0x87, ""), "asks for an IP address of 0 bytes, want 4 or 16"},
		{"attributes of indefinite length", func(p *csrParts) { p.attributes = []byte{0xa0, 0x80, 0, 0} },
			"is not a PKCS#10 request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			der := signedCSR(t, row.change)

			csr, err := readCSR(der)

			if row.want != "" {
				assert.EqualError(t, err, row.want)
				return
			}
			require.NoError(t, err)
			assert.NoError(t, csr.CheckSignature())
			assert.Equal(t, der, csr.Raw)
			der[len(der)/2] ^= 1
			if forged, err := readCSR(der); err == nil {
				assert.Error(t, forged.CheckSignature(), "the signature is over the original bytes")
			}
		})
	}
}

func FuzzReadCSR(f *testing.F) {
	for _, name := range []string{"no-attributes", "underscore", "u-label", "five-byte-address", "two-sans",
		"two-extension-requests", "empty-extension-request"} {
		f.Add(derOf(f, "requests/"+name+".pem"))
	}
	f.Add(derOf(f, "pem/csr.pem"))
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := readCSR(der)
		if err != nil {
			if err.Error() == "" || len(err.Error()) > 500 {
				t.Fatalf("the fault has %d characters", len(err.Error()))
			}
			return
		}
		p, ok := splitCSR(der)
		if !ok || !bytes.Equal(csr.Raw, der) || !bytes.Equal(csr.RawSubject, p.subject) ||
			!bytes.Equal(csr.RawTBSCertificateRequest, p.tbs) || !bytes.Equal(csr.RawSubjectPublicKeyInfo, p.spki) {
			t.Fatal("what is kept is not what came")
		}
		if _, dropped := withoutForbiddenUsages(csr); len(dropped) == len(pki.KeyUsages) {
			t.Fatal("everything was dropped")
		}
	})
}
