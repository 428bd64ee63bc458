package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	library "github.com/pavlo-v-chernykh/keystore-go/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestEncode_stores_areReadByDecodeAndOtherLibraries(t *testing.T) {
	p := fixtures()
	for name, e := range encoders {
		t.Run(name, func(t *testing.T) {
			roots := must(e.encode(trustEntries(), password))
			requireDecoded(t, trustEntries(), e.format, roots, password)
			if e.format == keystore.PKCS12 { // the library refuses certificates without Java's attribute
				certs := must(gopkcs12.DecodeTrustStore(roots, password))
				assert.Equal(t, []*x509.Certificate{p.root, p.intermediate}, certs)
			}
			for kind, entity := range p.entities {
				data := must(e.encode(keyEntries(kind), password))
				requireDecoded(t, keyEntries(kind), e.format, data, password)
				if e.format == keystore.PKCS12 {
					key, leaf, issuers, err := gopkcs12.DecodeChain(data, password)
					require.NoError(t, err)
					assert.Equal(t, entity, entityOf(key, append([]*x509.Certificate{leaf}, issuers...)))
					continue
				}
				store := library.New()
				require.NoError(t, store.Load(bytes.NewReader(data), []byte(password)))
				entry := must(store.GetPrivateKeyEntry("certificate", []byte(password)))
				assert.Equal(t, pkcs8(kind), entry.PrivateKey)
				assert.Equal(t, entity.chain[1].Raw, entry.CertificateChain[1].Content)
				assert.True(t, now.Equal(entry.CreationTime))
			}
		})
	}
}

func entityOf(key any, chain []*x509.Certificate) entity { return entity{key.(crypto.Signer), chain} }

// remoteKey is a key that cannot be written, as one in a security module.
type remoteKey struct{ crypto.Signer }

func (k remoteKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("not called") }

func TestEncode_entriesThatNoJVMCouldUse_areRefused(t *testing.T) {
	rsa, ec := fixtures().entities["RSA"], fixtures().entities["ECDSA"]
	root := []*x509.Certificate{fixtures().root}
	type entries = []keystore.Entry
	want := golden.Read(t, "encode.txt")
	for sentence, row := range map[string]struct {
		entries  entries
		password string
	}{
		"no entries":                          {nil, password},
		"no password":                         {keyEntries("RSA"), ""},
		"a password beyond ASCII":             {keyEntries("RSA"), "päss"},
		"a password with a newline":           {keyEntries("RSA"), "pass\n"},
		"no alias":                            {entries{{Chain: root}}, password},
		"a trusted entry without certificate": {entries{{Alias: "a"}}, password},
		"a key without certificate":           {entries{{Alias: "a", Key: rsa.key}}, password},
		"another key's certificate":           {entries{{Alias: "a", Key: rsa.key, Chain: ec.chain}}, password},
		"aliases that differ in case": {entries{{Alias: "a", Chain: root}, {Alias: "A", Chain: root}},
			password},
		"a key in a security module": {entries{{Alias: "a", Key: remoteKey{rsa.key}, Chain: rsa.chain}}, password},
	} {
		for name, e := range encoders {
			_, err := e.encode(row.entries, row.password)
			assert.EqualError(t, err, want[sentence], "%s in %s", sentence, name)
			var keyError *keystore.KeyError
			assert.Equal(t, sentence == "a key in a security module", errors.As(err, &keyError), sentence)
		}
	}
}

func TestEncodeJKS_entries_areSortedLowerCaseAndDated(t *testing.T) {
	var entries []keystore.Entry
	for _, alias := range []string{"Zulu", "alpha", "Mike"} {
		entries = append(entries, trusted(alias, fixtures().root))
	}
	created := time.UnixMilli(1_700_000_000_123)
	data := must(keystore.EncodeJKS(entries, password, created))
	store := must(keystore.Open(data, password))
	assert.Equal(t, []string{"alpha", "mike", "zulu"}, store.Names)
	assert.Equal(t, 3, bytes.Count(data, binary.BigEndian.AppendUint64(nil, uint64(created.UnixMilli()))))
	assert.Equal(t, data, must(keystore.EncodeJKS(entries, password, created)), "a trust store has nothing random")
}

func TestEncodePKCS12_files_areReadByOpenSSL(t *testing.T) {
	for _, profile := range []keystore.Profile{keystore.ProfileModern, keystore.ProfileLegacy} {
		for kind, e := range fixtures().entities {
			data := must(keystore.EncodePKCS12(keyEntries(kind), password, profile))
			out := openssl(t, data, "pkcs12", "-in", "in", "-nodes", "-passin", "env:PW")
			assert.Equal(t, 2, bytes.Count(out, []byte("friendlyName: certificate\n")), "key and certificate are named")
			assert.Equal(t, 2, bytes.Count(out, []byte("localKeyID: ")))
			requireDecoded(t, []keystore.Entry{{Key: e.key, Chain: e.chain}}, keystore.PEM, out, "")
		}
	}
}

// The tests here start a JVM, about a second each; those that can run side by side.

// Each store of keys has a trusted certificate, too, in all formats under names that mislead: Java goes by content, and
// shows and finds aliases in lower case.
func TestEncode_stores_openInJavaAndCompleteMutualTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name+".pem")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	algorithms := map[string]string{"RSA": "RSA", "ECDSA": "EC", "Ed25519": "EdDSA"} // in Java
	passwordFile := write("pass", []byte(password))
	var args, want []string
	for name, e := range encoders {
		roots := write(name+"trust", must(e.encode(trustEntries()[:1], password)))
		for kind := range fixtures().entities {
			entries := append(keyEntries(kind), trusted("z-other", fixtures().other))
			entries[0].Alias = "My-Key"
			args = append(args, write(name+kind, must(e.encode(entries, password))), passwordFile, roots, passwordFile)
			want = append(want,
				"keystore "+string(e.format),
				"my-key PrivateKeyEntry "+algorithms[kind]+" chain 2",
				"z-other trustedCertEntry CN=Other Root CA, O=Throwaway",
				"truststore "+string(e.format),
				"trusted-certificate-1 trustedCertEntry CN=Test Root CA, O=Throwaway",
				"mutual handshake TLSv1.3 CN=localhost", "")
		}
	}
	out, err := fixture.Java(t, "", "../../test/java/OpenStores.java", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	// JKS lists entries in the order of a hash table.
	assert.ElementsMatch(t, want, strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"))
}

// keytool runs it with a file in and returns what it wrote into the file out.
func keytool(t *testing.T, in []byte, args ...string) []byte {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in"), in, 0o600))
	printed, err := fixture.Keytool(t, dir, args...)
	require.NoError(t, err, printed)
	return must(os.ReadFile(filepath.Join(dir, "out")))
}

func TestDecode_storesOfKeytool_areRead(t *testing.T) {
	var want []keystore.Entry
	for _, kind := range []string{"ECDSA", "Ed25519", "RSA"} {
		e := fixtures().entities[kind]
		want = append(want, keystore.Entry{Alias: "key-" + strings.ToLower(kind), Key: e.key, Chain: e.chain})
	}
	want = append(want, trusted("other root", fixtures().other))
	ours := must(keystore.EncodePKCS12(want, password, keystore.ProfileModern))
	const property = "-J-Dkeystore.pkcs12."
	for name, row := range map[string]struct {
		format  keystore.Format
		options []string
	}{
		"JKS":           {keystore.JKS, nil},
		"PKCS12":        {keystore.PKCS12, nil},
		"PKCS12 legacy": {keystore.PKCS12, []string{property + "legacy"}},
		"PKCS12 with other algorithms": {keystore.PKCS12, []string{
			property + "keyProtectionAlgorithm=PBEWithHmacSHA512AndAES_128",
			property + "certProtectionAlgorithm=PBEWithHmacSHA1AndAES_256", property + "macAlgorithm=HmacPBESHA384"}},
		"PKCS12 with certificates in the clear": {keystore.PKCS12, []string{
			property + "certProtectionAlgorithm=NONE", property + "macAlgorithm=NONE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := keytool(t, ours, append(row.options, "-importkeystore", "-noprompt", "-srckeystore", "in",
				"-srcstorepass", password, "-destkeystore", "out", "-deststorepass", password,
				"-deststoretype", string(row.format))...)
			got, format, err := keystore.Decode(data, password)
			require.NoError(t, err)
			assert.Equal(t, row.format, format)
			slices.SortFunc(got, func(a, b keystore.Entry) int { return strings.Compare(a.Alias, b.Alias) })
			assert.Equal(t, want, got)

			_, _, err = keystore.Decode(data, "other")
			assert.ErrorIs(t, err, keystore.ErrPassword)
		})
	}
	t.Run("JCEKS is refused", func(t *testing.T) {
		t.Parallel()
		_, err := keystore.Detect(keytool(t, certificates(fixtures().other), "-importcert", "-noprompt", "-file", "in",
			"-keystore", "out", "-storetype", "JCEKS", "-alias", "root", "-storepass", password))
		assert.ErrorContains(t, err, "store is a JCEKS key store")
	})
}
