package certservice

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
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

// testFiles are those of test/testdata, and some more; a+b is a file with both.
func testFiles(t *testing.T) func(name string) ([]byte, error) {
	made := newCA(t, "Old")
	template := *made.Root
	signed := func(public any) []byte {
		der := must(x509.CreateCertificate(rand.Reader, &template, &template, public, made.RootKey))
		return pemOf("CERTIFICATE", der)
	}
	files := map[string][]byte{
		"text": []byte("nothing"), "bad": pemOf("CERTIFICATE", []byte{0x30, 0}),
		"leaf": pemOf("CERTIFICATE", selfSigned(t, newKey(t))),
		"CRL":  pemOf("X509 CRL", []byte{0x30, 0}), "damaged": testFile(t, "pem/root-ca.pem")[:200],
		"large":     signed(fixture.OversizedRSA().Public()),
		"version-1": pemOf("CERTIFICATE", must(fixture.Version1(made.Root, made.RootKey)).Raw),
	}
	template.SignatureAlgorithm = x509.ECDSAWithSHA1
	files["SHA-1"] = signed(made.RootKey.Public())
	return func(name string) (all []byte, err error) {
		for part := range strings.SplitSeq(name, "+") {
			content, found := files[part]
			if !found {
				content, err = os.ReadFile(filepath.Join("../../test/testdata", part))
			}
			if err != nil {
				return noFiles(name)
			}
			all = append(all, content...)
		}
		return all, nil
	}
}

// Below each command of testdata/servers.txt is what is wrong with a cmpServers.json, or else what is read from its
// first entry. ⏎ is the end of a line.
func TestParseServers_asTheTextsSay(t *testing.T) {
	files := testFiles(t)
	golden.Play(t, "servers.txt", func(t *testing.T, _, commands string) (got string) {
		for line := range strings.Lines(commands) {
			command, text, _ := strings.Cut(strings.TrimSuffix(line, "\n")[2:], " ")
			good := map[string]json.RawMessage{"caName": []byte(`"RA"`), "url": []byte(`"http://ca:8080/cmp"`),
				"issuerDN": []byte(`"CN=ca"`), "authentication": []byte(`{"iak": "very-secret-iak", "rv": "r"}`)}
			switch command {
			case "entry": // a good one, with other fields
				require.NoError(t, json.Unmarshal([]byte(text), &good))
				text = fileOf(jsonText(t, good))
			case "encoded":
				text = encoded("\ufeff"+fileOf(jsonText(t, good)), text)
			}
			file, err := parseServers([]byte(strings.ReplaceAll(text, "⏎", "\n")), files)
			got += line
			if err != nil {
				assert.ErrorAs(t, err, new(Faults))
				assert.NotContains(t, err.Error(), "verysecret")
				got += "refused: " + err.Error() + "\n"
				continue
			}
			assert.Empty(t, file.Faults)
			for _, warning := range file.Warnings {
				got += "warning: " + warning + "\n"
			}
			got += shown(file.Servers[0]) + "\n"
		}
		return got
	})
}

func encoded(text, encoding string) string {
	var encoded []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		switch encoding {
		case "UTF-16LE":
			encoded = binary.LittleEndian.AppendUint16(encoded, unit)
		case "UTF-16BE":
			encoded = binary.BigEndian.AppendUint16(encoded, unit)
		default:
			return text
		}
	}
	return string(encoded)
}

// shown is all that is not zero.
func shown(part any) string {
	var text []string
	value := reflect.ValueOf(part)
	for field, v := range value.Fields() {
		switch {
		case v.IsZero():
		case v.Type() == reflect.TypeFor[[]*x509.Certificate]():
			for _, certificate := range v.Interface().([]*x509.Certificate) {
				text = append(text, field.Name+" "+pki.DN(certificate.RawSubject))
			}
		case v.Kind() == reflect.Struct:
			text = append(text, field.Name+" ("+shown(v.Interface())+")")
		case v.Kind() == reflect.Pointer:
			text = append(text, field.Name)
		case v.Kind() == reflect.String:
			text = append(text, field.Name+" "+v.String()) // secrets, too
		default:
			text = append(text, fmt.Sprintf("%s %v", field.Name, v))
		}
	}
	return strings.Join(text, "; ")
}

func TestLoadServers_files_areBoundedAndNeverWaitedFor(t *testing.T) {
	dir := t.TempDir()
	pipe, path := filepath.Join(dir, "pipe"), filepath.Join(dir, "cmpServers.json")
	writeFile(t, path, make([]byte, MaxConfigBytes+1))
	_, err := loadServers(path, readBounded)
	assert.EqualError(t, err, path+" is larger than 8388608 bytes")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	writeFile(t, path, []byte(fileOf(entryWith(`"trustAnchors": "pipe"`))))
	want := "read " + pipe + ": is a device, pipe or socket, want a file"
	_, err = loadServers(pipe, readBounded)
	assert.EqualError(t, err, want)
	_, err = loadServers(path, readBounded)
	assert.EqualError(t, err, "cmpv2Servers[0].trustAnchors: "+want)
}

func FuzzParseServers(f *testing.F) {
	f.Add([]byte(fileOf(entryText("RA"), entryText("CLIENT"))))
	f.Add([]byte(
		`{"cmpv2Servers": [{"caName": "RA", "url": "https://[::1]:1/", "issuerDN": "CN=a+O=\"b\"",
		"trustAnchors": "x", "responseTrust": "onap", "protection": "pbmac1", "timeout": "1s",
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
