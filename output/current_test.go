package output

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
)

// foreign replaces files by those of another volume, with the same passwords.
func foreign(b Bundle, names ...string) func(*testing.T, *Config) {
	return func(t *testing.T, cfg *Config) {
		from := *cfg
		from.Dir = filepath.Join(t.TempDir(), "other")
		from.KeystorePassword = readFile(t, cfg.Dir, keystorePass)
		from.TruststorePassword = readFile(t, cfg.Dir, truststorePass)
		mustPublish(t, mustOpen(t, from), b)
		for _, name := range names {
			writeFile(t, cfg.Dir, name, readFile(t, from.Dir, name))
		}
	}
}

func TestVolume_Current_saysWhatDiffers(t *testing.T) {
	b, other := newBundle(), newBundle()
	shortChain := Bundle{Key: b.Key, Chain: b.Chain[:1], Trusted: b.Trusted}
	otherTrust := Bundle{Key: b.Key, Chain: b.Chain, Trusted: other.Chain[1:]}
	write := func(name, data string) func(*testing.T, *Config) {
		return func(t *testing.T, cfg *Config) { writeFile(t, cfg.Dir, name, data) }
	}
	copied := func(to, from string) func(*testing.T, *Config) {
		return func(t *testing.T, cfg *Config) { writeFile(t, cfg.Dir, to, readFile(t, cfg.Dir, from)) }
	}
	harmed := func(name string, harm func(path string) error) func(*testing.T, *Config) {
		return func(t *testing.T, cfg *Config) { require.NoError(t, harm(filepath.Join(cfg.Dir, name))) }
	}
	set := func(change func(cfg *Config)) func(*testing.T, *Config) {
		return func(_ *testing.T, cfg *Config) { change(cfg) }
	}
	tooLarge := func(path string) error { return os.Truncate(path, readLimit+1) }
	for name, row := range map[string]struct {
		change func(*testing.T, *Config)
		want   string // after the directory
	}{
		"a file is missing":     {harmed("key.pem", os.Remove), `/key.pem" is missing`},
		"a file is a directory": {harmed("key.pem", replaceBy(makeDir)), `/key.pem" is not a regular file`},
		"a file is a link":      {harmed("key.pem", replaceBy(makeLink)), `/key.pem" is not a regular file`},
		"a file is too large": {harmed("key.pem", tooLarge),
			`/key.pem" cannot be read: has 2097153 bytes, want at most 2097152`},
		"a type is not wanted any more": {set(func(cfg *Config) { cfg.Types = []string{TypePEM} }),
			`/keystore.pass" belongs to output type P12 or JKS, want only files of PEM`},
		"the alias is another": {set(func(cfg *Config) { cfg.KeystoreAlias = "server" }),
			`/keystore.p12" has the alias "certificate", want "server"`},
		"the prefix is another": {set(func(cfg *Config) { cfg.TruststoreAliasPrefix = "ca-" }),
			`/truststore.p12" has 0 private keys and 1 other certificates ` +
				`and no trusted certificate with the alias "ca-1"`},
		"the profile is another": {set(func(cfg *Config) { cfg.P12Profile = "legacy" }),
			`/keystore.p12" has the PKCS#12 profile "modern", want "legacy"`},
		"the keystore's password is given": {set(func(cfg *Config) { cfg.KeystorePassword = "changeit" }),
			`/keystore.pass" has another password than the configured one`},
		"the truststore's password is given": {set(func(cfg *Config) { cfg.TruststorePassword = "changeit" }),
			`/truststore.pass" has another password than the configured one`},
		"the layout is another": {set(func(cfg *Config) { cfg.Layout = LayoutSymlink }),
			`" has the layout "inplace", want "symlink"`},
		"a password file is empty": {write(truststorePass, ""), `/truststore.pass" has 0 bytes, want a password of 6 to 1024`},
		"a password does not fit": {write(truststorePass, "changeit"),
			`/truststore.p12" does not open with the password beside it`},
		"a store is not one": {write("keystore.jks", "x"),
			`/keystore.jks" is unusable: store is in no known format, want JKS, PKCS#12 or PEM`},
		"a store is of another format": {copied("keystore.jks", "keystore.p12"),
			`/keystore.jks" is a store of format PKCS12, want JKS`},
		"a keystore is a truststore": {func(t *testing.T, cfg *Config) {
			copied(truststorePass, keystorePass)(t, cfg)
			foreign(b, "truststore.p12")(t, cfg)
			copied("keystore.p12", "truststore.p12")(t, cfg)
		}, `/keystore.p12" has 0 private keys and 1 other certificates, want one private key with its certificates`},
		"the JKS is of another certificate": {foreign(other, "keystore.jks"),
			`/keystore.jks" has another private key than keystore.p12`},
		"the JKS has another chain": {foreign(shortChain, "keystore.jks"),
			`/keystore.jks" has another certificate chain than keystore.p12`},
		"the PEM trusts another CA": {foreign(otherTrust, "truststore.pem"),
			`/truststore.pem" has other certificates than the trusted ones of type P12`},
		"the combined file is another": {foreign(other, "keystore-combined.pem"),
			`/keystore-combined.pem" has something else than key.pem and keystore.pem`},
		"the PEM key is not the certificate's": {func(t *testing.T, cfg *Config) {
			foreign(other, "key.pem")(t, cfg)
			writeFile(t, cfg.Dir, "keystore-combined.pem", readFile(t, cfg.Dir, "key.pem")+readFile(t, cfg.Dir, "keystore.pem"))
			cfg.Types = []string{TypePEM}
			for _, f := range wanted([]string{TypeP12, TypeJKS}) {
				require.NoError(t, os.Remove(filepath.Join(cfg.Dir, f.Name)))
			}
		}, `/keystore.pem" has a private key that its certificate is not for`},
		"a key lies among the certificates": {copied("truststore.pem", "key.pem"),
			`/truststore.pem" has a private key, want certificates only`},
		"the key is missing from its file": {copied("key.pem", "keystore.pem"),
			`/key.pem" has 0 private keys and 2 other certificates, want one private key`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, LayoutInplace, TypeP12, TypeJKS, TypePEM)
			mustPublish(t, mustOpen(t, cfg), b)
			row.change(t, &cfg)

			_, err := Read(cfg)
			assert.EqualError(t, err, `"`+cfg.Dir+row.want)
			v := mustOpen(t, cfg)
			_, err = v.Current()
			_, isMismatch := errors.AsType[*MismatchError](err)
			assert.True(t, isMismatch)
			if name != "a file is a directory" { // that is moved aside
				assert.EqualError(t, err, `"`+cfg.Dir+row.want)
			}
			// Whatever it was, publishing repairs it.
			require.True(t, mustPublish(t, v, b).Changed)
			requireCurrent(t, cfg, b)
		})
	}
}

func TestVolume_Current_acceptsTheJavaClientsFiles(t *testing.T) {
	cfg, b := newConfig(t, LayoutInplace, TypeP12), newBundle()
	b.Note = nil
	require.NoError(t, os.Mkdir(cfg.Dir, 0o750))
	for name, row := range map[string]struct {
		entry    keystore.Entry
		password string
	}{
		"keystore":   {keystore.Entry{Alias: "certificate", Key: b.Key, Chain: b.Chain}, "Abcdefghijklmnopqrstu_$#"},
		"truststore": {keystore.Entry{Alias: "trusted-certificate-1", Chain: b.Trusted, Trusted: true}, "changeit"},
	} {
		store, err := keystore.EncodePKCS12([]keystore.Entry{row.entry}, row.password, keystore.ProfileModern)
		require.NoError(t, err)
		writeFile(t, cfg.Dir, name+".p12", string(store))
		writeFile(t, cfg.Dir, name+".pass", row.password)
		require.NoError(t, os.Chmod(filepath.Join(cfg.Dir, name+".pass"), 0o644))
	}
	requireCurrent(t, cfg, b)

	// Restoring what was read closes the files that the client left open to all.
	require.True(t, mustRestore(t, reopened(t, cfg)).Changed)
	requireClosed(t, cfg.Dir, DefaultFileMode, "after Restore")
	assert.Equal(t, "changeit", readFile(t, cfg.Dir, truststorePass))
}

func TestVolume_Current_manyTrustedCertificatesKeepTheirOrder(t *testing.T) {
	for _, format := range FormatNames() {
		cfg, b := newConfig(t, LayoutSymlink, format), newBundle()
		for range 11 {
			b.Trusted = append(b.Trusted, newCA().Root)
		}
		mustPublish(t, mustOpen(t, cfg), b)
		requireCurrent(t, cfg, b)
	}
}

func TestRead_changesNothing(t *testing.T) {
	missing := newConfig(t, LayoutInplace, TypePEM)
	_, err := Read(missing)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoDirExists(t, missing.Dir)

	cfg, v, _ := published(t, LayoutInplace, TypePEM)
	v.step = func(op, path string) error {
		if op == files.OpRename && filepath.Base(path) == "key.pem" {
			panic(kill{})
		}
		return nil
	}
	require.True(t, wasKilled(func() { _, _ = v.Publish(newBundle()) }))
	before := listing(t, cfg.Dir)
	_, err = Read(cfg)
	require.EqualError(t, err, `"`+cfg.Dir+`/..commit" holds a publication that was interrupted, the next start completes it`)
	require.Equal(t, before, listing(t, cfg.Dir))
}

func TestVolume_Publish_refusesWhatNoReaderCouldUse(t *testing.T) {
	b, other := newBundle(), newBundle()
	for want, bundle := range map[string]Bundle{
		"has no private key or no certificate, want both ":                {Chain: b.Chain, Trusted: b.Trusted},
		"has no private key or no certificate, want both":                 {Key: b.Key, Trusted: b.Trusted},
		"the certificate holds another public key than the private key's": {Key: b.Key, Chain: other.Chain, Trusted: b.Trusted},
		"has no trusted certificate, want at least one":                   {Key: b.Key, Chain: b.Chain},
		"has a note of 65537 bytes, want at most 65536":                   {b.Key, b.Chain, b.Trusted, make([]byte, NoteLimit+1)},
		"x509: unknown key type while marshaling PKCS#8: output.opaque":   {Key: opaque{b.Key}, Chain: b.Chain, Trusted: b.Trusted},
	} {
		cfg := newConfig(t, LayoutSymlink, TypeP12)
		_, err := mustOpen(t, cfg).Publish(bundle)
		encoding, isEncoding := errors.AsType[*EncodeError](err)
		require.True(t, isEncoding)
		assert.Equal(t, "encoding keystore.p12: "+strings.TrimSpace(want), err.Error())
		assert.Equal(t, strings.Contains(want, "opaque"), encoding.Key, want)
		assert.Empty(t, listing(t, cfg.Dir))
	}
}
