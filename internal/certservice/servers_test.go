package certservice

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/ca"
)

// onapServers is a file as ONAP's charts write it.
const onapServers = `{
  "cmpv2Servers": [
    {
      "caName": "CLIENT",
      "url": "http://ejbca:8080/ejbca/publicweb/cmp/cmp",
      "issuerDN": "CN=ManagementCA",
      "caMode": "CLIENT",
      "authentication": {"iak": "mypassword", "rv": "mypassword"}
    },
    {
      "caName": "RA",
      "url": "http://ejbca:8080/ejbca/publicweb/cmp/cmpRA",
      "issuerDN": "CN=ManagementCA",
      "caMode": "RA",
      "authentication": {"iak": "mypassword", "rv": "mypassword"}
    }
  ]
}`

func noFiles(name string) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func TestParseServers_onapFile_isTakenAsItIs(t *testing.T) {
	servers, err := parseServers([]byte(onapServers), noFiles)

	require.NoError(t, err)
	require.Len(t, servers.Servers, 2)
	assert.Equal(t, "RA", servers.Servers[1].CAName)
	assert.Equal(t, "http://ejbca:8080/ejbca/publicweb/cmp/cmpRA", servers.Servers[1].URL)
	assert.Equal(t, "CN=ManagementCA", servers.Servers[1].IssuerDN)
	assert.Equal(t, []byte("mypassword"), servers.Servers[1].IAK.Reveal())
	assert.Equal(t, []byte("mypassword"), servers.Servers[1].RV.Reveal())
	assert.Equal(t, ProtectionPBMSHA256, servers.Servers[1].Protection)
	assert.Zero(t, servers.Servers[1].Timeout)
	assert.Empty(t, servers.Servers[1].TrustAnchors)
	assert.Empty(t, servers.Servers[1].ResponseTrust)
}

func TestLoadServers_optionalFields_areRead(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "roots.pem"), golden(t, "pem/root-ca.pem"), 0o600))
	path := filepath.Join(dir, "cmpServers.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"cmpv2Servers": [{"caName": "RA", "url": "https://ca.example", "issuerDN": "O=x,CN=y",
		"authentication": {"iak": "i", "rv": "r"}, "protection": "pbmac1", "timeout": "1m30s", "trustAnchors": "roots.pem", "additionalRoots": "roots.pem",
		"responseTrust": "onap", "allowModified": true, "signerDN": "CN=RA", "recipientDN": "CN=front", "sender": "reference",
		"confirmation": "explicit", "tlsTrust": "roots.pem", "maxInFlight": 40, "new": {"field": 1}}], "other": null}`), 0o600))

	servers, err := LoadServers(path)

	require.NoError(t, err)
	assert.Equal(t, "pbmac1", servers.Servers[0].Protection)
	assert.Equal(t, 90*time.Second, servers.Servers[0].Timeout)
	assert.Equal(t, 40, servers.Servers[0].MaxInFlight)
	assert.Equal(t, goldenCert(t, "root-ca.pem"), servers.Servers[0].TrustAnchors[0])
	assert.Equal(t, goldenCert(t, "root-ca.pem"), servers.Servers[0].AdditionalRoots[0])
	assert.Equal(t, TrustONAP, servers.Servers[0].ResponseTrust)
	assert.True(t, servers.Servers[0].AllowModified)
	assert.Equal(t, "CN=RA", servers.Servers[0].SignerDN)
	assert.Equal(t, "CN=front", servers.Servers[0].RecipientDN)
	assert.True(t, servers.Servers[0].SenderReference)
	assert.True(t, servers.Servers[0].ExplicitConfirm)
	assert.Equal(t, goldenCert(t, "root-ca.pem"), servers.Servers[0].TLS.Trust[0])
	assert.Empty(t, servers.Warnings)
}

func TestParseServers_responseTrust_isAnchoredWhereAnchorsAreGiven(t *testing.T) {
	servers, err := parseServers([]byte(`{"cmpv2Servers": [{"caName": "RA", "url": "http://ca", "issuerDN": "CN=y",
		"authentication": {"iak": "i", "rv": "r"}, "trustAnchors": "/roots.pem"}]}`),
		func(string) ([]byte, error) { return golden(t, "pem/root-ca.pem"), nil })

	require.NoError(t, err)
	assert.Equal(t, TrustAnchored, servers.Servers[0].ResponseTrust)
}

func TestParseServers_null_countsAsAbsent(t *testing.T) {
	servers, err := parseServers([]byte(`{"cmpv2Servers": [{"caName": "RA", "url": "http://ca", "issuerDN": "CN=y",
		"authentication": {"iak": "i", "rv": "r"}, "trustAnchors": null, "additionalRoots": null, "responseTrust": null}]}`), noFiles)

	require.NoError(t, err)
	assert.Empty(t, servers.Servers[0].ResponseTrust, "RESPONSE_TRUST decides")
	assert.Empty(t, servers.Servers[0].TrustAnchors)
}

func TestParseServers_file_refuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                             `the file is empty, want an object with the key "cmpv2Servers"`,
		"{":                            `line 1, column 1: the file is not JSON: it ends too early, want all braces and brackets closed`,
		"{\n  \"cmpv2Servers\": [}":    `line 2, column 20: the file is not JSON: has '}', want a value`,
		"{} {}":                        `line 1, column 4: the file is not JSON: has '{', want the end of the file`,
		`{"a": 1,}`:                    `line 1, column 9: the file is not JSON: has '}', want a field's name in double quotes (remove the comma before it)`,
		`{"a": [1,]}`:                  `line 1, column 10: the file is not JSON: has ']', want a value (remove the comma before it)`,
		`{"a": 1 "b": 2}`:              `line 1, column 9: the file is not JSON: has '"', want a comma or }`,
		`{"a" 1}`:                      `line 1, column 6: the file is not JSON: has '1', want a colon`,
		`{'a': 1}`:                     `line 1, column 2: the file is not JSON: has '\'', want a field's name in double quotes (strings are in double quotes)`,
		"// servers\n{}":               `line 1, column 1: the file is not JSON: has '/', want a value (JSON has no comments)`,
		"{\"a\": \"b\n\"}":             `line 1, column 9: the file is not JSON: has the byte 0x0a, want a string without control characters: a line break in it is written as \n`,
		`{"a": 007}`:                   `line 1, column 8: the file is not JSON: has '0', want a comma or }`,
		`{"a": "\d"}`:                  `line 1, column 9: the file is not JSON: has 'd', want one of " \ / b f n r t u after a backslash`,
		`{"a": nil}`:                   `line 1, column 8: the file is not JSON: has 'i', want a value such as true, false or null`,
		"[]":                           `the file holds a list, want an object with the key "cmpv2Servers"`,
		"null":                         `the file holds null, want an object with the key "cmpv2Servers"`,
		"{}":                           `cmpv2Servers: is missing, want a list of at least one server`,
		`{"cmpv2Servers": null}`:       `cmpv2Servers: is null, want a list of at least one server`,
		`{"cmpv2Servers": {}}`:         `cmpv2Servers: is an object, want a list of at least one server`,
		`{"cmpv2Servers": []}`:         `cmpv2Servers: is empty, want at least one server`,
		`{"cmpv2Servers": [true, 1]}`:  `cmpv2Servers[0]: is true or false, want an object; cmpv2Servers[1]: is a number, want an object`,
		`{"cmpv2servers": [{}]}`:       `cmpv2Servers: is missing (there is "cmpv2servers"), want a list of at least one server`,
		`{"cmpv2Servers": [{}, null]}`: `cmpv2Servers[0].caName: is missing; cmpv2Servers[0].url: is missing; cmpv2Servers[0].issuerDN: is missing; cmpv2Servers[0].authentication: is missing; cmpv2Servers[1]: is null, want an object`,
	} {
		_, err := parseServers([]byte(text), noFiles)
		assert.EqualError(t, err, want, text)
		_, ok := errors.AsType[Faults](err)
		assert.True(t, ok)
	}
}

func TestParseServers_field_refuses(t *testing.T) {
	made := newCA(t, "Large")
	large, err := x509.CreateCertificate(rand.Reader, made.Root, made.Root, ca.OversizedRSA().Public(), made.RootKey)
	require.NoError(t, err)
	for _, row := range []struct{ field, value, want string }{
		{"caName", `""`, `caName: has 0 characters, want 1 to 128`},
		{"caName", `"` + strings.Repeat("x", 129) + `"`, `caName: has 129 characters, want 1 to 128`},
		{"caName", `null`, `caName: is missing`},
		{"caName", `[]`, `caName: is a list, want a string`},
		{"caName", `"a\u0007b"`, `caName: has "a\ab", want printable characters only`},
		{"caName", `".."`, `caName: has "..", which clients take out of a path, want another name`},
		{"signerDN", `"RA"`, `signerDN: has 2 characters, want 4 to 256`},
		{"recipientDN", `"ManagementCA"`, `recipientDN: reading distinguished name "ManagementCA": "ManagementCA" has no equals sign`},
		{"sender", `"rv"`, `sender: has "rv", want one of subject, reference`},
		{"confirmation", `true`, `confirmation: is true or false, want a string`},
		{"tlsTrust", `"absent.pem"`, `tlsTrust: open absent.pem: file does not exist`},
		{"tlsIdentity", `"tls.pem"`, `tlsIdentity: is a string, want an object with "certificate" and "key"`},
		{"tlsIdentity", `{"certificate": "leaf.pem"}`, `tlsIdentity.key: is missing`},
		{"tlsIdentity", `{"certificate": "leaf.pem", "key": "absent.pem"}`, `tlsIdentity.key: open absent.pem: file does not exist`},
		{"tlsIdentity", `{"certificate": "leaf.pem", "key": "other-key.pem"}`, `tlsIdentity: cannot be used: private key type does not match public key type, want a PEM certificate and its unencrypted PEM key`},
		{"tlsIdentity", `{"certificate": "leaf.pem", "key": "empty.pem"}`, `tlsIdentity: cannot be used: failed to find any PEM data in key input, want a PEM certificate and its unencrypted PEM key`},
		{"url", `"ftp://ca"`, `url: has the scheme "ftp", want http or https`},
		{"url", `"ca:80"`, `url: has the scheme "ca", want http or https`},
		{"url", `"http:///cmp"`, `url: has no host`},
		{"url", `"http://ca:0/"`, `url: has the port 0, want 1 to 65535`},
		{"url", `"http://ca:65536/"`, `url: has the port 65536, want 1 to 65535`},
		{"url", `"http://ca:x/"`, `url: is not a URL`},
		{"url", `"http://u:verysecret@ca"`, `url: has a user name, want none`},
		{"url", `"http://ca/#x"`, `url: has a fragment, want none`},
		{"url", `["http://ca"]`, `url: is a list, want a string`},
		{"issuerDN", `"C=x"`, `issuerDN: has 3 characters, want 4 to 256`},
		{"issuerDN", `"CN=` + strings.Repeat("x", 254) + `"`, `issuerDN: has 257 characters, want 4 to 256`},
		{"issuerDN", `"ManagementCA"`, `issuerDN: reading distinguished name "ManagementCA": "ManagementCA" has no equals sign`},
		{"authentication", `"verysecret"`, `authentication: is a string, want an object`},
		{"authentication", `{"rv": "r"}`, `authentication.iak: is missing`},
		{"authentication", `{"iak": "", "rv": "r"}`, `authentication.iak: has 0 characters, want 1 to 256`},
		{"authentication", `{"iak": "i", "rv": "` + strings.Repeat("verysecret", 26) + `"}`, `authentication.rv: has 260 characters, want 1 to 256`},
		{"authentication", `{"iak": ["verysecret"], "rv": "r"}`, `authentication.iak: is a list, want a string`},
		{"protection", `"md5"`, `protection: has "md5", want one of pbm-sha256, pbm-sha1, pbmac1`},
		{"protection", `1`, `protection: is a number, want a string`},
		{"timeout", `"30"`, `timeout: has "30", want a duration such as "30s"`},
		{"timeout", `"-1s"`, `timeout: has "-1s", want a duration such as "30s"`},
		{"maxInFlight", `"40"`, `maxInFlight: is a string, want a number from 1`},
		{"maxInFlight", `0`, `maxInFlight: has 0, want a number from 1 to 1073741824`},
		{"maxInFlight", `1.5`, `maxInFlight: has 1.5, want a number from 1 to 1073741824`},
		{"timeout", `30`, `timeout: is a number, want a string`},
		{"trustAnchors", `"absent.pem"`, `trustAnchors: open absent.pem: file does not exist`},
		{"trustAnchors", `"empty.pem"`, `trustAnchors: has "empty.pem", which holds no PEM certificate`},
		{"trustAnchors", `"bad.pem"`, `trustAnchors: has "bad.pem", which holds no certificate that can be read: the PEM block "CERTIFICATE" at line 1: x509: malformed tbs certificate`},
		{"trustAnchors", `""`, `trustAnchors: is empty, want the path of a PEM file, or no such field`},
		{"additionalRoots", `""`, `additionalRoots: is empty, want the path of a PEM file, or no such field`},
		{"additionalRoots", `7`, `additionalRoots: is a number, want a string`},
		{"additionalRoots", `"absent.pem"`, `additionalRoots: open absent.pem: file does not exist`},
		{"additionalRoots", `"empty.pem"`, `additionalRoots: has "empty.pem", which holds no PEM certificate`},
		{"additionalRoots", `"issuing.pem"`, `additionalRoots: has certificate 2, "` + pki.DN(goldenCert(t, "issuing-ca.pem").RawSubject) + `", which is not a self-signed CA certificate`},
		{"additionalRoots", `"leaf.pem"`, `additionalRoots: has certificate 1, "CN=old", which is not a self-signed CA certificate`},
		{"trustAnchors", `"large.pem"`, `trustAnchors: has no certificate in "large.pem" that can be used: certificate 1, "CN=Large Root CA,O=Throwaway", can verify nothing here: its RSA key has 8676 bits, want at most 8192`},
		{"responseTrust", `"anchored"`, `responseTrust: is "anchored", which needs trustAnchors`},
		{"allowModified", `"yes"`, `allowModified: is a string, want true or false`},
		{"responseTrust", `"all"`, `responseTrust: has "all", want one of anchored, onap`},
	} {
		t.Run(row.want, func(t *testing.T) {
			fields := map[string]json.RawMessage{
				"caName": []byte(`"RA"`), "url": []byte(`"http://ca:8080/cmp"`), "issuerDN": []byte(`"CN=ca"`),
				"authentication": []byte(`{"iak": "i", "rv": "r"}`),
			}
			fields[row.field] = []byte(row.value)
			entry, err := json.Marshal(fields)
			require.NoError(t, err)

			_, err = parseServers([]byte(`{"cmpv2Servers": [`+string(entry)+`]}`), func(name string) ([]byte, error) {
				switch name {
				case "empty.pem":
					return []byte("nothing"), nil
				case "issuing.pem":
					return append(golden(t, "pem/root-ca.pem"), golden(t, "pem/issuing-ca.pem")...), nil
				case "leaf.pem":
					return pemOf(selfSigned(t, newKey(t))), nil
				case "other-key.pem":
					return golden(t, "pem/key.pem"), nil
				case "large.pem":
					return pemOf(large), nil
				case "bad.pem":
					return []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), nil
				default:
					return noFiles(name)
				}
			})

			require.EqualError(t, err, "cmpv2Servers[0]."+row.want)
			assert.NotContains(t, err.Error(), "verysecret")
		})
	}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// What a root's signature by itself was made with protects nothing: clients are handed it on the operator's word.
func TestParseServers_additionalRoots_mayBeOld(t *testing.T) {
	made := newCA(t, "Old")
	version1, err := ca.Version1(made.Root, made.RootKey)
	require.NoError(t, err)
	template := *made.Root
	template.SignatureAlgorithm = x509.ECDSAWithSHA1
	sha1, err := x509.CreateCertificate(rand.Reader, &template, &template, made.RootKey.Public(), made.RootKey)
	require.NoError(t, err)
	for name, der := range map[string][]byte{"version 1": version1.Raw, "SHA-1": sha1} {
		servers, err := parseServers([]byte(`{"cmpv2Servers": [{"caName": "RA", "url": "http://ca", "issuerDN": "CN=y",
			"authentication": {"iak": "i", "rv": "r"}, "additionalRoots": "old.pem"}]}`),
			func(string) ([]byte, error) { return pemOf(der), nil })

		require.NoError(t, err, name)
		assert.Equal(t, der, servers.Servers[0].AdditionalRoots[0].Raw, name)
	}
}

func TestParseServers_faults_areAllToldAtOnce(t *testing.T) {
	file, err := parseServers([]byte(`{"cmpv2Servers": [
		{"caName": "RA", "url": "http://ca", "issuerDN": "CN=ca", "authentication": {"iak": "i", "rv": "r"}},
		{"caName": "RA", "url": "ca", "issuerDN": "x", "authentication": {}}]}`), noFiles)

	require.NoError(t, err)
	require.Len(t, file.Servers, 1, "one bad entry makes no other useless")
	assert.Equal(t, Faults{
		`cmpv2Servers[1].issuerDN: has 1 characters, want 4 to 256`,
		`cmpv2Servers[1].url: has the scheme "", want http or https`,
		`cmpv2Servers[1].authentication.iak: is missing`,
		`cmpv2Servers[1].authentication.rv: is missing`,
		`cmpv2Servers[1].caName: has "RA", which is the name of cmpv2Servers[0] already`,
	}, file.Faults)
}

func TestLoadServers_file_isBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cmpServers.json")
	require.NoError(t, os.WriteFile(path, make([]byte, maxConfigBytes+1), 0o600))

	_, err := LoadServers(path)

	assert.EqualError(t, err, path+" is larger than 1048576 bytes")
}

// A pipe would have its reader wait for a writer, for ever where there is none.
func TestLoadServers_pipe_isRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	pipe, path := filepath.Join(dir, "pipe"), filepath.Join(dir, "cmpServers.json")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	writeFile(t, path, strings.Replace(serversFile("RA"), `"url"`, `"trustAnchors": "pipe", "url"`, 1))
	want := "read " + pipe + ": is a device, pipe or socket, want a file"

	_, err := LoadServers(pipe)
	assert.EqualError(t, err, want)
	_, err = LoadServers(path)
	assert.EqualError(t, err, "cmpv2Servers[0].trustAnchors: "+want)
}

func TestServer_secrets_areShownNowhere(t *testing.T) {
	servers, err := parseServers([]byte(onapServers), noFiles)
	require.NoError(t, err)
	var log strings.Builder
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("server", "server", servers.Servers[0], "pointer", &servers.Servers[0], "iak", servers.Servers[0].IAK)
	}
	encoded, err := json.Marshal(servers)
	require.NoError(t, err)

	for _, text := range []string{log.String(), string(encoded), fmt.Sprint(servers), fmt.Sprintf("%v %+v %#v", servers, servers, servers), fmt.Sprintf("%s %q %x", servers.Servers[0].IAK, servers.Servers[0].IAK, servers.Servers[0].IAK)} {
		assert.NotContains(t, text, "mypassword")
		assert.Contains(t, text, "*****")
	}
	assert.Equal(t, "*****", servers.Servers[0].IAK.String())
}

func FuzzParseServers(f *testing.F) {
	f.Add([]byte(onapServers))
	f.Add([]byte(`{"cmpv2Servers": [{"caName": "RA", "url": "https://[::1]:1/", "issuerDN": "CN=a+O=\"b\"", "trustAnchors": "x",
		"responseTrust": "onap", "protection": "pbmac1", "timeout": "1s", "authentication": {"iak": "i", "rv": "r"}}]}`))
	f.Add([]byte(`{"cmpv2Servers": [{"caName": 1, "authentication": {"iak": null}}, [], {"url": "http://%zz"}]}`))
	anchors := golden(f, "pem/root-ca.pem")
	f.Fuzz(func(t *testing.T, data []byte) {
		servers, err := parseServers(data, func(string) ([]byte, error) { return anchors, nil })
		if (err == nil) != (len(servers.Servers) > 0) {
			t.Fatalf("%d servers and the error %v", len(servers.Servers), err)
		}
		names := map[string]bool{}
		for _, s := range servers.Servers {
			if names[s.CAName] || s.CAName == "" || s.URL == "" || s.IssuerDN == "" || s.IAK == "" || s.RV == "" || s.Protection == "" {
				t.Fatalf("taken though incomplete: %+v", s)
			}
			names[s.CAName] = true
		}
	})
}
