package keystore_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/peer"
)

// openssl runs the program with the test password in PW and gives it the input as a file "in".
func openssl(t *testing.T, input []byte, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in"), input, 0o600))
	cmd := exec.Command(peer.Require(t, "openssl")[0], args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PW="+password)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "openssl %v: %s", args, &stderr)
	return out
}

func TestDecodePKCS12_filesOfOpenSSL_areRead(t *testing.T) {
	e := fixtures(t).entities["ECDSA"]
	input := slices.Concat(block("PRIVATE KEY", pkcs8(t, "ECDSA")), certificates(e.chain...))
	for name, args := range map[string][]string{
		"as it comes":                {},
		"as OpenSSL 1 wrote":         {"-legacy"},
		"RC2 with 128 bits":          {"-legacy", "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-RC2-128"},
		"AES-128 and SHA-384":        {"-certpbe", "AES-128-CBC", "-keypbe", "AES-128-CBC", "-macalg", "sha384"},
		"AES-192 and SHA-512":        {"-certpbe", "AES-192-CBC", "-keypbe", "AES-192-CBC", "-macalg", "sha512"},
		"3DES in PBES2 and SHA-224":  {"-certpbe", "DES-EDE3-CBC", "-keypbe", "DES-EDE3-CBC", "-macalg", "sha224"},
		"no MAC":                     {"-nomac"},
		"a MAC of one iteration":     {"-nomaciter"},
		"a MAC and no encryption":    {"-certpbe", "NONE", "-keypbe", "NONE"},
		"neither MAC nor encryption": {"-nomac", "-certpbe", "NONE", "-keypbe", "NONE"},
	} {
		t.Run(name, func(t *testing.T) {
			data := openssl(t, input, append([]string{"pkcs12", "-export", "-in", "in", "-name", "my name", "-passout", "env:PW"}, args...)...)
			got, _, err := keystore.Decode(data, password)
			require.NoError(t, err)
			requireEntries(t, []keystore.Entry{{Alias: "my name", Key: e.key, Chain: e.chain}}, got)
		})
	}
}

func TestDecodePKCS12_trustStoreOfOpenSSL_hasUnmarkedCertificates(t *testing.T) {
	p := fixtures(t)
	data := openssl(t, certificates(p.root, p.intermediate), "pkcs12", "-export", "-nokeys", "-in", "in",
		"-caname", "the root", "-passout", "env:PW")
	got, _, err := keystore.Decode(data, password)
	require.NoError(t, err)
	requireEntries(t, []keystore.Entry{
		{Alias: "the root", Chain: []*x509.Certificate{p.root}},
		{Alias: "1", Chain: []*x509.Certificate{p.intermediate}},
	}, got)
}

func TestEncodePKCS12_files_areReadByOpenSSL(t *testing.T) {
	for _, profile := range []keystore.Profile{keystore.ProfileModern, keystore.ProfileLegacy} {
		for kind, e := range fixtures(t).entities {
			t.Run(string(profile)+" with "+kind+" key", func(t *testing.T) {
				data, err := keystore.EncodePKCS12(keyEntries(t, kind), password, profile)
				require.NoError(t, err)
				out := openssl(t, data, "pkcs12", "-in", "in", "-nodes", "-passin", "env:PW")
				assert.Equal(t, 2, bytes.Count(out, []byte("friendlyName: certificate\n")), "key and certificate are named")
				assert.Equal(t, 2, bytes.Count(out, []byte("localKeyID: ")))
				got, _, err := keystore.Decode(out, "")
				require.NoError(t, err)
				requireEntries(t, []keystore.Entry{{Key: e.key, Chain: e.chain}}, got)
			})
		}
	}
}

func TestDecodePEM_encryptedKeysOfOpenSSL_areRead(t *testing.T) {
	e := fixtures(t).entities["RSA"]
	for name, args := range map[string][]string{
		"as it comes":             {},
		"AES-128 and SHA-1":       {"-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"},
		"AES-192 and SHA-224":     {"-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA224"},
		"AES-256 and SHA-384":     {"-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA384"},
		"AES-256 and SHA-512":     {"-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"},
		"3DES":                    {"-v2", "des3"},
		"the old scheme and 3DES": {"-v1", "PBE-SHA1-3DES"},
	} {
		t.Run(name, func(t *testing.T) {
			data := openssl(t, block("PRIVATE KEY", pkcs8(t, "RSA")),
				append([]string{"pkcs8", "-topk8", "-in", "in", "-passout", "env:PW"}, args...)...)
			data = append(data, certificates(e.chain...)...)
			got, _, err := keystore.Decode(data, password)
			require.NoError(t, err)
			requireEntries(t, []keystore.Entry{{Key: e.key, Chain: e.chain}}, got)

			for _, wrong := range []string{"", "other"} {
				_, _, err = keystore.Decode(data, wrong)
				assert.ErrorIs(t, err, keystore.ErrPassword)
				assert.EqualError(t, err, `reading PEM store: the PEM block "ENCRYPTED PRIVATE KEY" at line 1 cannot be read: wrong password for the key, or it is damaged`)
			}
		})
	}
}

func TestDecodePEM_scryptKeyOfOpenSSL_isRead(t *testing.T) {
	plain := block("PRIVATE KEY", pkcs8(t, "RSA"))
	want, _, err := keystore.Decode(plain, "")
	require.NoError(t, err)
	data := openssl(t, plain, "pkcs8", "-topk8", "-scrypt", "-in", "in", "-passout", "env:PW")
	got, _, err := keystore.Decode(data, password)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}
