package certservice

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/peer"
)

// requestOf is the header of an enrolment with a file of requests/.
func requestOf(t testing.TB, name string) http.Header {
	t.Helper()
	return http.Header{
		"Csr": {base64.StdEncoding.EncodeToString(golden(t, "requests/"+name))},
		"Pk":  {base64.StdEncoding.EncodeToString(golden(t, "requests/key.pem"))},
	}
}

func derOf(t testing.TB, name string) []byte {
	t.Helper()
	block, _ := pem.Decode(golden(t, name))
	require.NotNil(t, block)
	return block.Bytes
}

func TestHandler_csr_thatOthersTakeReachesTheCAAsItIs(t *testing.T) {
	for name, sans := range map[string][]string{
		"no-attributes.pem":           nil,
		"underscore.pem":              {"app.example.org"},
		"empty-extension-request.pem": nil,
		"two-extension-requests.pem":  {"app.example.org"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newCMPServer(t)
			server.ca.Change = func(leaf *x509.Certificate) {
				leaf.RawSubject, leaf.Subject = nil, pkix.Name{CommonName: "as the CA likes"}
			}
			authority, _ := server.authority(func(s *Server) { s.AllowModified = true })
			s := newService(t, authority, nil)

			r := s.get(t, "/v1/certificate/RA", requestOf(t, name))

			require.Equal(t, http.StatusOK, r.StatusCode, r.text)
			parts, ok := splitCSR(derOf(t, "requests/"+name))
			require.True(t, ok)
			template := server.received[0].Body.Content.(cmp.CertReqMessages)[0].CertReq.CertTemplate
			assert.Equal(t, parts.subject, template.Subject)
			assert.Equal(t, parts.spki, template.PublicKey)
			csr, err := readCSR(derOf(t, "requests/"+name))
			require.NoError(t, err)
			assert.Equal(t, sans, csr.DNSNames)
			assert.Equal(t, pki.DN(parts.subject), s.audit(t)["requested"].(map[string]any)["subject"])
		})
	}
}

// devca issues the subject as it was written, so that the certificate and its update have the underscore, too.
func TestService_devCA_underscore_enrolsAndUpdates(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, anchored)
	header := requestOf(t, "underscore.pem")

	first := s.get(t, "/v1/certificate/RA", header)
	require.Equal(t, http.StatusOK, first.StatusCode, first.text)
	var issued struct{ CertificateChain []string }
	require.NoError(t, json.Unmarshal([]byte(first.text), &issued))
	header["Old_cert"] = []string{base64.StdEncoding.EncodeToString([]byte(issued.CertificateChain[0]))}
	header["Old_pk"] = header["Pk"]
	second := s.get(t, "/v1/certificate-update/RA", header)

	require.Equal(t, http.StatusOK, second.StatusCode, second.text)
	assert.Equal(t, uint64(1), development.Stats().Updated)
}

// A second implementation takes what is taken here.
func TestReadCSR_openssl_takesTheSame(t *testing.T) {
	openssl := peer.Require(t, "openssl")[0]
	for _, name := range []string{"no-attributes", "underscore", "empty-extension-request", "two-extension-requests"} {
		file := filepath.Join("..", "..", "test", "testdata", "requests", name+".pem")
		out, err := exec.Command(openssl, "req", "-in", file, "-noout", "-verify", "-subject").CombinedOutput()
		assert.NoError(t, err, string(out))
	}
}

func TestHandler_csr_thatIsRefusedSaysWhy(t *testing.T) {
	for name, why := range map[string]string{
		"u-label.pem":           `asks for the DNS name "åäö.example.org", which is not ASCII, want its A-label (xn--…)`,
		"five-byte-address.pem": `asks for an IP address of 5 bytes, want 4 or 16`,
		"two-sans.pem":          `asks for the extension subjectAltName twice, want one of each kind`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, goldenAuthority(t), nil)

			r := s.get(t, "/v1/certificate/RA", requestOf(t, name))

			assert.Equal(t, http.StatusBadRequest, r.StatusCode)
			assert.JSONEq(t, jsonText(t, errorBody{ErrorMessage: messageCSR + ": the CSR " + why}), r.text)
			assert.Equal(t, "CSR "+why, s.audit(t)["reason"])
		})
	}
}

// signedCSR makes a request whose contents are changed before it is signed.
func signedCSR(t testing.TB, change func(tbs *csrParts)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	p, ok := splitCSR(newCSR(t, key))
	require.True(t, ok)
	change(&p)
	tbs := derSequence(t, p.version, p.subject, p.spki, p.attributes)
	hash := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	require.NoError(t, err)
	bits, err := asn1.Marshal(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)})
	require.NoError(t, err)
	return derSequence(t, tbs, p.algorithm, bits)
}

func derSequence(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(parts, nil)})
	require.NoError(t, err)
	return der
}

func TestReadCSR_neighbours(t *testing.T) {
	name := func(tag byte, text string) []byte {
		value := append([]byte{tag, byte(len(text))}, text...)
		attribute := derSequence(t, []byte{6, 3, 0x55, 4, 3}, value)
		return derSequence(t, append([]byte{0x31, byte(len(attribute))}, attribute...))
	}
	san := func(tag byte, text string) []byte {
		names := derSequence(t, append([]byte{tag, byte(len(text))}, text...))
		extension := derSequence(t, []byte{6, 3, 0x55, 0x1d, 17}, append([]byte{4, byte(len(names))}, names...))
		set := derSequence(t, extension)
		request := derSequence(t, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0xd, 1, 9, 14}, append([]byte{0x31, byte(len(set))}, set...))
		return append([]byte{0xa0, byte(len(request))}, request...)
	}
	for _, row := range []struct {
		name   string
		change func(*csrParts)
		want   string // "" when it is taken
	}{
		{"an at sign in a PrintableString", func(p *csrParts) { p.subject = name(19, "a@b") }, ""},
		{"an underscore, and no attributes", func(p *csrParts) { p.subject, p.attributes = name(19, "a_b"), nil }, ""},
		{"Latin-1 in a PrintableString", func(p *csrParts) { p.subject = name(19, "\xe5") },
			"has a subject that is not a name, or one with other characters than ASCII in a PrintableString: want a UTF8String for such text"},
		{"broken UTF-8 in a UTF8String", func(p *csrParts) { p.subject = name(12, "\xe5") }, "is not a PKCS#10 request"},
		{"an e-mail address that is not ASCII", func(p *csrParts) { p.attributes = san(0x81, "å@x") }, `asks for the e-mail address "å@x", which is not ASCII`},
		{"a URI that is not ASCII", func(p *csrParts) { p.attributes = san(0x86, "http://å") }, `asks for the URI "http://å", which is not ASCII, want it percent-encoded`},
		{"a URI that does not parse", func(p *csrParts) { p.attributes = san(0x86, "http://%zz") }, `asks for the URI "http://%zz", which cannot be parsed`},
		{"an empty address", func(p *csrParts) { p.attributes = san(0x87, "") }, "asks for an IP address of 0 bytes, want 4 or 16"},
		{"attributes of indefinite length", func(p *csrParts) { p.attributes = []byte{0xa0, 0x80, 0, 0} }, "is not a PKCS#10 request"},
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
				assert.Error(t, forged.CheckSignature(), "the signature is over the bytes that came")
			}
		})
	}
}

func usageExtension(t testing.TB, names ...string) pkix.Extension {
	t.Helper()
	return pkix.Extension{Id: oidKeyUsage, Critical: true, Value: keyUsageValue(names)}
}

func ekuExtension(t testing.TB, oids ...asn1.ObjectIdentifier) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(oids)
	require.NoError(t, err)
	return pkix.Extension{Id: oidExtKeyUsage, Value: value}
}

func headerWith(t testing.TB, key any, extensions ...pkix.Extension) http.Header {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "app"}, DNSNames: []string{"app.example"}, ExtraExtensions: extensions}, key)
	require.NoError(t, err)
	return http.Header{"Csr": {headerValue("CERTIFICATE REQUEST", csr)}, "Pk": {headerValue("PRIVATE KEY", pkcs8(t, key))}}
}

func TestHandler_csr_thatAsksForAnAuthoritysUsagesIsRefused(t *testing.T) {
	s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) {
		t.Error("the authority was asked")
		return Issued{}, nil
	}), nil)
	kp := func(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, n} }
	for want, extension := range map[string]pkix.Extension{
		"key usage keyCertSign":                  usageExtension(t, "digitalSignature", "keyCertSign"),
		"key usage cRLSign":                      usageExtension(t, "cRLSign"),
		"extended key usage anyExtendedKeyUsage": ekuExtension(t, kp(1), asn1.ObjectIdentifier{2, 5, 29, 37, 0}),
		"extended key usage codeSigning":         ekuExtension(t, kp(3)),
		"extended key usage OCSPSigning":         ekuExtension(t, kp(1), kp(9)),
		"extended key usage cmcCA":               ekuExtension(t, kp(27)),
		"extended key usage cmcRA":               ekuExtension(t, kp(28)),
	} {
		r := s.get(t, "/v1/certificate/RA", headerWith(t, newKey(t), extension))

		assert.Equal(t, http.StatusBadRequest, r.StatusCode, want)
		assert.JSONEq(t, jsonText(t, errorBody{ErrorMessage: messageCSR + ": the CSR asks for the " + want + ", which is not issued here"}), r.text)
	}
	for want, extension := range map[string]pkix.Extension{
		"a keyUsage":          {Id: oidKeyUsage, Value: []byte{5, 0}},
		"an extendedKeyUsage": {Id: oidExtKeyUsage, Value: []byte{0x30, 5}},
	} {
		r := s.get(t, "/v1/certificate/RA", headerWith(t, newKey(t), extension))
		assert.Contains(t, r.text, "asks for "+want+" that cannot be read")
	}
}

func TestCMPAuthority_template_isWithoutBasicConstraintsAndWithUsagesThatFitTheKey(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	isCA := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}
	for _, row := range []struct {
		name    string
		key     any
		asked   []string
		want    []string
		dropped string
	}{
		{"RSA", rsaKey, []string{"digitalSignature", "keyEncipherment"}, []string{"digitalSignature", "keyEncipherment"}, ""},
		{"EC", newKey(t), []string{"digitalSignature", "keyEncipherment", "keyAgreement"}, []string{"digitalSignature", "keyAgreement"}, "keyEncipherment"},
		{"Ed25519", edKey, []string{"digitalSignature", "keyEncipherment", "keyAgreement"}, []string{"digitalSignature"}, "keyEncipherment, keyAgreement"},
		{"EC for signatures", newKey(t), []string{"digitalSignature"}, []string{"digitalSignature"}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := newCMPServer(t)
			a, log := server.authority(nil)
			r, fault := parseRequest(headerWith(t, row.key, usageExtension(t, row.asked...), isCA), false, DefaultMaxRSABits)
			require.Nil(t, fault)

			_, err := a.Enroll(t.Context(), r)

			require.NoError(t, err)
			template := server.received[0].Body.Content.(cmp.CertReqMessages)[0].CertReq.CertTemplate
			var usages []string
			for _, e := range template.Extensions {
				assert.False(t, e.Id.Equal(isCA.Id), "CA:TRUE never leaves")
				if e.Id.Equal(oidKeyUsage) {
					usages, _ = keyUsages(e.Value)
				}
			}
			assert.Equal(t, row.want, usages)
			assert.Equal(t, row.dropped != "", containsText(log, "key usages that a certificate with such a key must not have are not asked for"))
			assert.True(t, row.dropped == "" || containsText(log, row.dropped))
		})
	}
}

func FuzzReadCSR(f *testing.F) {
	for _, name := range []string{"no-attributes", "underscore", "u-label", "five-byte-address", "two-sans", "two-extension-requests", "empty-extension-request"} {
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
		parts, ok := splitCSR(der)
		if !ok || string(csr.Raw) != string(der) || string(csr.RawSubject) != string(parts.subject) ||
			string(csr.RawTBSCertificateRequest) != string(parts.tbs) || string(csr.RawSubjectPublicKeyInfo) != string(parts.spki) {
			t.Fatal("what is kept is not what came")
		}
		if _, dropped := withoutForbiddenUsages(csr); len(dropped) == len(keyUsageNames) {
			t.Fatal("everything was dropped")
		}
	})
}
