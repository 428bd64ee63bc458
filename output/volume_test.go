package output

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The files of each format, in the order in which they are replaced, with their modes.
var expectedFiles = map[string][]string{
	TypeP12: {"keystore.pass -rw-r-----", "truststore.pass -rw-r-----", "truststore.p12 -rw-r--r--",
		"keystore.p12 -rw-r-----"},
	TypeJKS: {"keystore.pass -rw-r-----", "truststore.pass -rw-r-----", "truststore.jks -rw-r--r--",
		"keystore.jks -rw-r-----"},
	TypePEM: {"truststore.pem -rw-r--r--", "keystore-combined.pem -rw-r-----", "key.pem -rw-r-----",
		"keystore.pem -rw-r--r--"},
	"all": {"keystore.pass -rw-r-----", "truststore.pass -rw-r-----",
		"truststore.p12 -rw-r--r--", "truststore.jks -rw-r--r--", "truststore.pem -rw-r--r--",
		"keystore.p12 -rw-r-----", "keystore.jks -rw-r-----",
		"keystore-combined.pem -rw-r-----", "key.pem -rw-r-----", "keystore.pem -rw-r--r--"},
}

func TestVolume_Publish_writesTheFilesOfEachFormat(t *testing.T) {
	for name, want := range expectedFiles {
		types := []string{name}
		if name == "all" {
			types = FormatNames()
		}
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, b := newConfig(t, layout, types...), newBundle()
			v := mustOpen(t, cfg)
			_, err := v.Current()
			require.ErrorIs(t, err, ErrEmpty)
			p := mustPublish(t, v, b)
			assert.True(t, p.Changed)
			var has []string
			for _, path := range p.Files {
				has = append(has, filepath.Base(path)+" "+stat(path).Mode().String())
			}
			assert.Equal(t, want, has)
			requireCurrent(t, cfg, b)
			asTheJavaClient := cfg
			asTheJavaClient.KeystoreAlias, asTheJavaClient.TruststoreAliasPrefix = "certificate", "trusted-certificate-"
			requireCurrent(t, asTheJavaClient, b)

			before := listing(t, cfg.Dir)
			for _, again := range []*Volume{v, mustOpen(t, cfg)} {
				again.step = func(op, path string) error {
					t.Errorf("%s %s", op, path)
					return nil
				}
				p := mustPublish(t, again, b)
				assert.False(t, p.Changed)
				assert.Len(t, p.Files, len(want))
			}
			require.Equal(t, before, listing(t, cfg.Dir), "an unchanged set is left alone")
		})
	}
	assert.Len(t, expectedFiles, 1+len(Formats()), "each format has its row")
}

func TestVolume_Publish_symlinkLooksLikeAKubeletsVolume(t *testing.T) {
	cfg, v, _ := published(t, LayoutSymlink, TypePEM)
	first := current(t, v)
	mustPublish(t, v, newBundle())
	second := current(t, v)
	want := map[string]string{dataLink: "-> " + second, first: "drwxr-x---", second: "drwxr-x---"}
	for _, f := range filesOf(cfg.Types) {
		want[f.Name] = "-> ..data/" + f.Name
	}
	require.Regexp(t, `^\.\.2026_03_01_12_00_\d\d\.000$`, second)
	require.Equal(t, want, listing(t, cfg.Dir), "the generation before stays for its readers")
}

// Truststores are salted, but a renewal seldom changes who is trusted: then their readers are left alone.
func TestVolume_Publish_truststoresChangeOnlyWithTheTrustedCertificates(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, v, _ := published(t, layout, FormatNames()...)
		stores := func() map[string]string {
			stores := map[string]string{}
			for _, f := range catalogue {
				if f.Trusted {
					stores[f.Name] = readFile(cfg.Dir, f.Name)
				}
			}
			return stores
		}
		before := stores()
		info := stat(v.path("truststore.p12"))

		renewed := newBundle()
		mustPublish(t, v, renewed)
		require.Equal(t, before, stores())
		assert.Equal(t, layout == LayoutInplace, os.SameFile(info, stat(v.path("truststore.p12"))))
		requireCurrent(t, cfg, renewed)

		renewed.Trusted = append(renewed.Trusted, newCA().Root)
		mustPublish(t, v, renewed)
		after := stores()
		maps.DeleteFunc(after, func(name, data string) bool { return data != before[name] })
		assert.Empty(t, after)
		requireCurrent(t, cfg, renewed)
	})
}
