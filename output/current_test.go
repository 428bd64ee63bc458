package output

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
)

func TestVolume_Current_saysWhatDiffers(t *testing.T) {
	b, other := newBundle(), newBundle()
	all := []string{TypeP12, TypeJKS, TypePEM}
	write := func(name, data string) func(t *testing.T, cfg *Config) {
		return func(t *testing.T, cfg *Config) {
			require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, name), []byte(data), 0o600))
		}
	}
	// foreign writes the file as another volume has it, with the same passwords.
	foreign := func(b Bundle, names ...string) func(t *testing.T, cfg *Config) {
		return func(t *testing.T, cfg *Config) {
			from := *cfg
			from.Dir = filepath.Join(t.TempDir(), "other")
			from.KeystorePassword, from.TruststorePassword = readFile(t, cfg.Dir, "keystore.pass"), readFile(t, cfg.Dir, "truststore.pass")
			mustPublish(t, mustOpen(t, from), b)
			for _, name := range names {
				write(name, readFile(t, from.Dir, name))(t, cfg)
			}
		}
	}
	for name, row := range map[string]struct {
		change func(t *testing.T, cfg *Config)
		want   string // after the directory
	}{
		"a file is missing": {func(t *testing.T, cfg *Config) { require.NoError(t, os.Remove(filepath.Join(cfg.Dir, "key.pem"))) },
			`/key.pem" is missing`},
		"a file is a directory": {func(t *testing.T, cfg *Config) {
			require.NoError(t, os.Remove(filepath.Join(cfg.Dir, "key.pem")))
			require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, "key.pem"), 0o700))
		}, `/key.pem" is not a regular file`},
		"a file is a link": {func(t *testing.T, cfg *Config) {
			require.NoError(t, os.Rename(filepath.Join(cfg.Dir, "key.pem"), filepath.Join(cfg.Dir, "elsewhere")))
			require.NoError(t, os.Symlink("elsewhere", filepath.Join(cfg.Dir, "key.pem")))
		}, `/key.pem" is not a regular file`},
		"a file is too large": {func(t *testing.T, cfg *Config) {
			require.NoError(t, os.Truncate(filepath.Join(cfg.Dir, "key.pem"), readLimit+1))
		},
			`/key.pem" cannot be read: has 2097153 bytes, want at most 2097152`},
		"a type is not wanted any more": {func(_ *testing.T, cfg *Config) { cfg.Types = []string{TypePEM} },
			`/keystore.pass" belongs to output type P12 or JKS, want only files of PEM`},
		"the alias is another": {func(_ *testing.T, cfg *Config) { cfg.KeystoreAlias = "server" },
			`/keystore.p12" has the alias "certificate", want "server"`},
		"the prefix is another": {func(_ *testing.T, cfg *Config) { cfg.TruststoreAliasPrefix = "ca-" },
			`/truststore.p12" has 0 private keys and 1 other certificates and no trusted certificate with the alias "ca-1"`},
		"the profile is another": {func(_ *testing.T, cfg *Config) { cfg.P12Profile = "legacy" },
			`/keystore.p12" has the PKCS#12 profile "modern", want "legacy"`},
		"the keystore's password is given":   {func(_ *testing.T, cfg *Config) { cfg.KeystorePassword = "changeit" }, `/keystore.pass" has another password than the configured one`},
		"the truststore's password is given": {func(_ *testing.T, cfg *Config) { cfg.TruststorePassword = "changeit" }, `/truststore.pass" has another password than the configured one`},
		"the layout is another":              {func(_ *testing.T, cfg *Config) { cfg.Layout = LayoutSymlink }, `" has the layout "inplace", want "symlink"`},
		"a password has a newline":           {write("keystore.pass", "changeit\n"), `/keystore.pass" has the byte 0x0a, want printable ASCII on one line with no line break at its end`},
		"a password file is empty":           {write("truststore.pass", ""), `/truststore.pass" has 0 bytes, want a password of 6 to 1024`},
		"a password does not fit":            {write("truststore.pass", "changeit"), `/truststore.p12" does not open with the password beside it`},
		"a store is no store":                {write("keystore.jks", "x"), `/keystore.jks" is unusable: store is in no known format, want JKS, PKCS#12 or PEM`},
		"a store is of another format": {func(t *testing.T, cfg *Config) { write("keystore.jks", readFile(t, cfg.Dir, "keystore.p12"))(t, cfg) },
			`/keystore.jks" is a store of format PKCS12, want JKS`},
		"a keystore is a truststore": {func(t *testing.T, cfg *Config) {
			write("truststore.pass", readFile(t, cfg.Dir, "keystore.pass"))(t, cfg)
			foreign(b, "truststore.p12")(t, cfg)
			write("keystore.p12", readFile(t, cfg.Dir, "truststore.p12"))(t, cfg)
		}, `/keystore.p12" has 0 private keys and 1 other certificates, want one private key with its certificates`},
		"the JKS is of another certificate": {foreign(other, "keystore.jks"), `/keystore.jks" has another private key than keystore.p12`},
		"the JKS has another chain":         {foreign(Bundle{Key: b.Key, Chain: b.Chain[:1], Trusted: b.Trusted}, "keystore.jks"), `/keystore.jks" has another certificate chain than keystore.p12`},
		"the JKS trusts somebody else":      {foreign(Bundle{Key: b.Key, Chain: b.Chain, Trusted: other.Chain[1:]}, "truststore.jks"), `/truststore.jks" has other certificates than the trusted ones of type P12`},
		"the PEM trusts somebody else":      {foreign(Bundle{Key: b.Key, Chain: b.Chain, Trusted: other.Chain[1:]}, "truststore.pem"), `/truststore.pem" has other certificates than the trusted ones of type P12`},
		"the combined file is another":      {foreign(other, "keystore-combined.pem"), `/keystore-combined.pem" has something else than key.pem and keystore.pem`},
		"the PEM key is another": {foreign(other, "key.pem", "keystore-combined.pem"),
			`/keystore-combined.pem" has something else than key.pem and keystore.pem`},
		"the PEM key is not the certificate's": {func(t *testing.T, cfg *Config) {
			foreign(other, "key.pem")(t, cfg)
			write("keystore-combined.pem", readFile(t, cfg.Dir, "key.pem")+readFile(t, cfg.Dir, "keystore.pem"))(t, cfg)
			cfg.Types = []string{TypePEM}
			for _, name := range []string{"keystore.p12", "keystore.jks", "truststore.p12", "truststore.jks", "keystore.pass", "truststore.pass"} {
				require.NoError(t, os.Remove(filepath.Join(cfg.Dir, name)))
			}
		}, `/keystore.pem" has a private key that its certificate is not for`},
		"a key lies among the certificates": {func(t *testing.T, cfg *Config) { write("truststore.pem", readFile(t, cfg.Dir, "key.pem"))(t, cfg) },
			`/truststore.pem" has a private key, want certificates only`},
		"the key is missing from its file": {func(t *testing.T, cfg *Config) { write("key.pem", readFile(t, cfg.Dir, "keystore.pem"))(t, cfg) },
			`/key.pem" has 0 private keys and 2 other certificates, want one private key`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, LayoutInplace, all...)
			mustPublish(t, mustOpen(t, cfg), b)
			row.change(t, &cfg)

			_, err := Read(cfg)
			assert.EqualError(t, err, `"`+cfg.Dir+row.want)
			v := mustOpen(t, cfg)
			_, err = v.Current()
			var mismatch *MismatchError
			require.ErrorAs(t, err, &mismatch)
			if name != "a file is a directory" { // that is moved aside
				assert.Equal(t, `"`+cfg.Dir+row.want, err.Error())
			}

			// Whatever it was, publishing mends it.
			require.True(t, mustPublish(t, v, b).Changed)
			requireCurrent(t, cfg, b)
		})
	}
}

func TestVolume_Current_acceptsTheJavaClientsFiles(t *testing.T) {
	cfg := newConfig(t, LayoutInplace, TypeP12)
	b := newBundle()
	b.Note = nil
	require.NoError(t, os.Mkdir(cfg.Dir, 0o750))
	key, err := keystore.EncodePKCS12([]keystore.Entry{{Alias: "certificate", Key: b.Key, Chain: b.Chain}}, "Abcdefghijklmnopqrstu_$#", keystore.ProfileModern)
	require.NoError(t, err)
	trust, err := keystore.EncodePKCS12([]keystore.Entry{{Alias: "trusted-certificate-1", Chain: b.Trusted, Trusted: true}}, "changeit", keystore.ProfileModern)
	require.NoError(t, err)
	for name, data := range map[string]string{
		"keystore.p12": string(key), "keystore.pass": "Abcdefghijklmnopqrstu_$#", "truststore.p12": string(trust), "truststore.pass": "changeit"} {
		require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, name), []byte(data), 0o644))
	}
	requireCurrent(t, cfg, b)

	// Restoring what was read closes the files that the client left open to all.
	v := mustOpen(t, cfg)
	_, err = v.Current()
	require.NoError(t, err)
	p, err := v.Restore()
	require.NoError(t, err)
	require.True(t, p.Changed)
	requireClosed(t, cfg.Dir, DefaultFileMode, "after Restore")
	assert.Equal(t, "changeit", readFile(t, cfg.Dir, "truststore.pass"))
}

func TestVolume_Current_manyTrustedCertificatesKeepTheirOrder(t *testing.T) {
	for _, outputType := range []string{TypeP12, TypeJKS, TypePEM} {
		cfg := newConfig(t, LayoutSymlink, outputType)
		b := newBundle()
		for range 11 {
			root, _ := issue("Root", nil, nil)
			b.Trusted = append(b.Trusted, root)
		}
		mustPublish(t, mustOpen(t, cfg), b)
		requireCurrent(t, cfg, b)
	}
}

func TestRead_changesNothing(t *testing.T) {
	cfg := newConfig(t, LayoutInplace, TypePEM)
	_, err := Read(cfg)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoDirExists(t, cfg.Dir)

	steps := 0
	v := mustOpen(t, cfg)
	v.step = at(20, &steps, killed)
	func() {
		defer func() { require.Equal(t, kill{}, recover()) }()
		_, _ = v.Publish(newBundle())
	}()
	before := listing(t, cfg.Dir)
	require.NotEmpty(t, before)
	_, err = Read(cfg)
	require.Error(t, err)
	require.Equal(t, before, listing(t, cfg.Dir))
}

func TestRead_interruptedPublication(t *testing.T) {
	cfg := newConfig(t, LayoutInplace, TypePEM)
	v := mustOpen(t, cfg)
	mustPublish(t, v, newBundle())
	v.step = func(op, path string) error {
		if op == files.OpRename && filepath.Base(path) == "key.pem" {
			panic(kill{})
		}
		return nil
	}
	func() {
		defer func() { require.Equal(t, kill{}, recover()) }()
		_, _ = v.Publish(newBundle())
	}()
	_, err := Read(cfg)
	require.EqualError(t, err, `"`+cfg.Dir+`/..commit" holds a publication that was interrupted, the next start completes it`)
}

func TestVolume_Publish_refusesWhatNobodyCouldUse(t *testing.T) {
	b := newBundle()
	for name, row := range map[string]struct {
		bundle Bundle
		want   string
	}{
		"no key":                  {Bundle{Chain: b.Chain, Trusted: b.Trusted}, "encoding keystore.p12: has no private key or no certificate, want both"},
		"no certificate":          {Bundle{Key: b.Key, Trusted: b.Trusted}, "encoding keystore.p12: has no private key or no certificate, want both"},
		"another's certificate":   {Bundle{Key: b.Key, Chain: newBundle().Chain, Trusted: b.Trusted}, "encoding keystore.p12: the certificate holds another public key than the private key's"},
		"nobody to trust":         {Bundle{Key: b.Key, Chain: b.Chain}, "encoding keystore.p12: has no trusted certificate, want at least one"},
		"a key that cannot leave": {Bundle{Key: opaque{b.Key}, Chain: b.Chain, Trusted: b.Trusted}, "encoding keystore.p12: x509: unknown key type while marshaling PKCS#8: output.opaque"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, LayoutSymlink, TypeP12)
			_, err := mustOpen(t, cfg).Publish(row.bundle)
			var encoding *EncodeError
			require.ErrorAs(t, err, &encoding)
			assert.EqualError(t, err, row.want)
			assert.Equal(t, name == "a key that cannot leave", encoding.Key)
			assert.Empty(t, listing(t, cfg.Dir))
		})
	}
}
