package certservice

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// entryText is a good entry.
func entryText(caName string) string {
	return `{"caName": "` + caName + `", "url": "http://ca", "issuerDN": "CN=ca",
		"authentication": {"iak": "very-secret-iak", "rv": "very-secret-rv"}}`
}

// entryWith is a good entry with more fields.
func entryWith(fields string) string {
	return strings.Replace(entryText("RA"), `"url"`, fields+`, "url"`, 1)
}

func fileOf(entries ...string) string {
	return `{"cmpv2Servers": [` + strings.Join(entries, ", ") + `]}`
}

func noFiles(name string) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// parse parses a file without faults whose files all have the given content.
func parse(t *testing.T, text string, content []byte) (Server, []string) {
	t.Helper()
	file := must(parseServers([]byte(text), func(string) ([]byte, error) { return content, nil }))
	require.Empty(t, file.Faults)
	return file.Servers[0], file.Warnings
}

func TestParseServers_fields_areRead(t *testing.T) {
	root := goldenCert(t, "root-ca.pem")
	// As ONAP's charts write it, but for the null.
	s, warnings := parse(t, fileOf(`{"caName": "RA", "url": "http://ejbca:8080/ejbca/publicweb/cmp/cmpRA",
		"issuerDN": "CN=ManagementCA", "caMode": "RA", "trustAnchors": null,
		"authentication": {"iak": "mypassword", "rv": "reference"}}`), nil)
	assert.Empty(t, warnings)
	assert.Equal(t, Server{
		CAName: "RA", URL: "http://ejbca:8080/ejbca/publicweb/cmp/cmpRA", IssuerDN: "CN=ManagementCA",
		IAK: "mypassword", RV: "reference", Protection: ProtectionPBMSHA256, place: "cmpv2Servers[0]",
	}, s)

	s, warnings = parse(t,
		`{"other": null, "cmpv2Servers": [{"caName": "RA", "url": "https://ca.example", "issuerDN": "O=x,CN=y",
		"authentication": {"iak": "i", "rv": "r"}, "protection": "pbmac1", "timeout": "1m30s",
		"trustAnchors": "roots.pem",
		"additionalRoots": "roots.pem", "responseTrust": "onap", "allowModified": true, "signerDN": "CN=RA",
		"recipientDN": "CN=front", "sender": "reference", "confirmation": "explicit", "tlsTrust": "roots.pem",
		"maxInFlight": 40, "new": {"field": 1}}]}`, testFile(t, "pem/root-ca.pem"))
	assert.Empty(t, warnings)
	assert.Equal(t, Server{
		CAName: "RA", URL: "https://ca.example", IssuerDN: "O=x,CN=y", IAK: "i", RV: "r", SignerDN: "CN=RA",
		RecipientDN: "CN=front", SenderReference: true, ExplicitConfirm: true,
		TLS:          TLS{Trust: []*x509.Certificate{root}},
		TrustAnchors: []*x509.Certificate{root}, AdditionalRoots: []*x509.Certificate{root}, Protection: "pbmac1",
		Timeout: 90 * time.Second, MaxInFlight: 40, ResponseTrust: TrustONAP, AllowModified: true,
		place: "cmpv2Servers[0]",
	}, s)
	s, _ = parse(t, fileOf(entryWith(`"trustAnchors": "/roots.pem"`)), testFile(t, "pem/root-ca.pem"))
	assert.Equal(t, TrustAnchored, s.ResponseTrust)
}

func TestParseServers_file_refuses(t *testing.T) {
	for _, row := range readTable[struct{ Text, Want string }](t, "refused-files.yaml") {
		_, err := parseServers([]byte(row.Text), noFiles)
		assert.EqualError(t, err, row.Want, row.Text)
		_, ok := errors.AsType[Faults](err)
		assert.True(t, ok)
	}
}

// largeCert is a certificate with a key that is too large to verify anything.
func largeCert(t *testing.T) []byte {
	made := newCA(t, "Large")
	public := fixture.OversizedRSA().Public()
	der := must(x509.CreateCertificate(rand.Reader, made.Root, made.Root, public, made.RootKey))
	return pemOf("CERTIFICATE", der)
}

func TestParseServers_field_refuses(t *testing.T) {
	files := map[string][]byte{
		"empty.pem":     []byte("nothing"),
		"issuing.pem":   append(testFile(t, "pem/root-ca.pem"), testFile(t, "pem/issuing-ca.pem")...),
		"leaf.pem":      pemOf("CERTIFICATE", selfSigned(t, newKey(t))),
		"other-key.pem": testFile(t, "pem/key.pem"),
		"large.pem":     largeCert(t),
		"bad.pem":       pemOf("CERTIFICATE", []byte{0x30, 0}),
	}
	for _, row := range readTable[struct{ Field, Value, Want string }](t, "refused-fields.yaml") {
		fields := map[string]json.RawMessage{
			"caName": []byte(`"RA"`), "url": []byte(`"http://ca:8080/cmp"`), "issuerDN": []byte(`"CN=ca"`),
			"authentication": []byte(`{"iak": "i", "rv": "r"}`),
		}
		fields[row.Field] = []byte(row.Value)
		_, err := parseServers([]byte(fileOf(jsonText(t, fields))), func(name string) ([]byte, error) {
			if content, ok := files[name]; ok {
				return content, nil
			}
			return noFiles(name)
		})
		require.EqualError(t, err, "cmpv2Servers[0]."+row.Want)
		assert.NotContains(t, err.Error(), "verysecret")
	}
}

func TestParseServers_doubtfulTexts_areReadWithAWarning(t *testing.T) {
	type row struct{ Old, New, Warning, Name, IAK, RV string }
	for _, row := range readTable[row](t, "warnings.yaml") {
		text := fileOf(strings.Replace(entryText("RA"), row.Old, row.New, 1))
		s, warnings := parse(t, text, testFile(t, "pem/root-ca.pem"))

		place := "cmpv2Servers[0]."
		if strings.HasPrefix(row.Warning, " ") {
			place = "cmpv2Servers[0]:"
		}
		assert.Equal(t, []string{place + row.Warning}, warnings)
		assert.True(t, row.Name == "" || row.Name == s.CAName)
		assert.True(t, row.IAK == "" || row.IAK == string(s.IAK))
		assert.True(t, row.RV == "" || row.RV == string(s.RV))
	}
	text := "\ufeff" + fileOf(entryText("RA"))
	var little, big []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		little = binary.LittleEndian.AppendUint16(little, unit)
		big = binary.BigEndian.AppendUint16(big, unit)
	}
	for _, text := range []string{text, string(little), string(big)} {
		s, warnings := parse(t, text, nil)
		assert.Equal(t, []string{"the file begins with a byte order mark, which is ignored"}, warnings)
		assert.Equal(t, "RA", s.CAName)
	}
}

func TestLoadServers_files_areBoundedAndNeverWaitedFor(t *testing.T) {
	dir := t.TempDir()
	pipe, path := filepath.Join(dir, "pipe"), filepath.Join(dir, "cmpServers.json")
	writeFile(t, path, make([]byte, maxConfigBytes+1))
	_, err := loadServers(path, readBounded)
	assert.EqualError(t, err, path+" is larger than 1048576 bytes")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	writeFile(t, path, []byte(fileOf(entryWith(`"trustAnchors": "pipe"`))))
	want := "read " + pipe + ": is a device, pipe or socket, want a file"
	_, err = loadServers(pipe, readBounded)
	assert.EqualError(t, err, want)
	_, err = loadServers(path, readBounded)
	assert.EqualError(t, err, "cmpv2Servers[0].trustAnchors: "+want)
}

// The signature of a root protects nothing: clients get it on the operator's word.
func TestParseServers_additionalRoots_mayBeOld(t *testing.T) {
	made := newCA(t, "Old")
	version1 := must(fixture.Version1(made.Root, made.RootKey))
	template := *made.Root
	template.SignatureAlgorithm = x509.ECDSAWithSHA1
	sha1 := must(x509.CreateCertificate(rand.Reader, &template, &template, made.RootKey.Public(), made.RootKey))
	for _, der := range [][]byte{version1.Raw, sha1} {
		s, _ := parse(t, fileOf(entryWith(`"additionalRoots": "old.pem"`)), pemOf("CERTIFICATE", der))
		assert.Equal(t, der, s.AdditionalRoots[0].Raw)
	}
}

// Certificates that crypto/x509 refuses or cannot verify with: as anchors they are skipped, as roots passed on.
func TestParseServers_certificatesThatCanVerifyNothing(t *testing.T) {
	good, goodCert := testFile(t, "pem/root-ca.pem"), goldenCert(t, "root-ca.pem")
	anchors, roots := fileOf(entryWith(`"trustAnchors": "certs.pem"`)),
		fileOf(entryWith(`"additionalRoots": "certs.pem"`))
	for name, reason := range map[string]string{
		"negative-serial": "it cannot be parsed: x509: negative serial number",
		"brainpool":       "it cannot be parsed: x509: unsupported elliptic curve",
		"ecacc":           "it cannot be parsed: x509: negative serial number",
		"ed448":           "its key is of an unsupported kind (Ed448)",
	} {
		bad := testFile(t, "certificates/"+name+".pem")
		block, _ := pem.Decode(bad)
		parsed := must(pki.Parse(block.Bytes))
		for position, content := range [][]byte{slices.Concat(bad, good), slices.Concat(good, bad)} {
			const place = `cmpv2Servers[0].trustAnchors: in "certs.pem", certificate`
			s, warnings := parse(t, anchors, content)
			assert.Equal(t, []*x509.Certificate{goodCert}, s.TrustAnchors)
			assert.Equal(t, []string{fmt.Sprintf(`%s %d, %q, can verify nothing here: %s; it is skipped`,
				place, position+1, pki.DN(parsed.RawSubject), reason)}, warnings)
		}
		s, warnings := parse(t, roots, slices.Concat(bad, good))
		require.Len(t, s.AdditionalRoots, 2)
		assert.Equal(t, block.Bytes, s.AdditionalRoots[0].Raw)
		assert.Contains(t, warnings[0], "can verify nothing here, and is passed to clients as it is: "+reason)
	}
	_, warnings := parse(t, roots, largeCert(t))
	assert.Contains(t, warnings[0], "its RSA key has 8676 bits, want at most 8192")
}

func TestParseServers_trustAnchors_warnings(t *testing.T) {
	anchors := fileOf(entryWith(`"trustAnchors": "certs.pem"`))
	issuing, root := testFile(t, "pem/issuing-ca.pem"), testFile(t, "pem/root-ca.pem")
	_, warnings := parse(t, anchors, issuing)
	assert.Equal(t, []string{`cmpv2Servers[0].trustAnchors: has "CN=Example Issuing CA", but not the root above it, ` +
		`"CN=Example Root CA": clients get a truststore without a root, which openssl and others refuse; ` +
		`put the root into trustAnchors`}, warnings)
	// Other characters in a PrintableString do no harm.
	for _, content := range [][]byte{root, slices.Concat(issuing, root), testFile(t, "certificates/underscore.pem")} {
		_, warnings = parse(t, anchors, content)
		assert.Empty(t, warnings)
	}
	// A damaged block affects only itself, and blocks of other kinds nothing.
	const damaged = `the PEM block "CERTIFICATE" at line %s: it has no END line: the file was ` +
		`cut short, or lines are missing`
	s, warnings := parse(t, anchors, slices.Concat(pemOf("X509 CRL", []byte{0x30, 0}), root, root[:200]))
	assert.Len(t, s.TrustAnchors, 1)
	require.Len(t, warnings, 1)
	assert.Regexp(t, `trustAnchors: in "certs.pem", `+fmt.Sprintf(damaged, `\d+`)+"; it is skipped", warnings[0])
	_, err := parseServers([]byte(anchors), func(string) ([]byte, error) { return root[:200], nil })
	assert.EqualError(t, err,
		`cmpv2Servers[0].trustAnchors: has "certs.pem", which holds no certificate that can be read: `+
			fmt.Sprintf(damaged, "1"))
}

func FuzzParseServers(f *testing.F) {
	f.Add([]byte(fileOf(entryText("RA"), entryText("CLIENT"))))
	f.Add([]byte(
		`{"cmpv2Servers": [{"caName": "RA", "url": "https://[::1]:1/", "issuerDN": "CN=a+O=\"b\"", "trustAnchors": "x",
		"responseTrust": "onap", "protection": "pbmac1", "timeout": "1s",
		"authentication": {"iak": "i", "rv": "r"}}]}`))
	f.Add([]byte(`{"cmpv2Servers": [{"caName": 1, "authentication": {"iak": null}}, [], {"url": "http://%zz"}]}`))
	anchors := testFile(f, "pem/root-ca.pem")
	f.Fuzz(func(t *testing.T, data []byte) {
		servers, err := parseServers(data, func(string) ([]byte, error) { return anchors, nil })
		if (err == nil) != (len(servers.Servers) > 0) {
			t.Fatalf("%d servers and the error %v", len(servers.Servers), err)
		}
		names := map[string]bool{"": true}
		for _, s := range servers.Servers {
			if names[s.CAName] || s.URL == "" || s.IssuerDN == "" || s.IAK == "" || s.RV == "" || s.Protection == "" {
				t.Fatalf("accepted though incomplete: %+v", s)
			}
			names[s.CAName] = true
		}
	})
}
