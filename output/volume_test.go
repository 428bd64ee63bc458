package output

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var layouts = []string{LayoutSymlink, LayoutInplace}

func TestVolume_Publish_writesTheFilesOfEachType(t *testing.T) {
	for _, layout := range layouts {
		for name, row := range map[string]struct {
			types []string
			want  map[string]string
		}{
			"P12": {[]string{TypeP12}, map[string]string{
				"keystore.p12": "-rw-r-----", "keystore.pass": "-rw-r-----", "truststore.p12": "-rw-r--r--", "truststore.pass": "-rw-r-----"}},
			"JKS": {[]string{TypeJKS}, map[string]string{
				"keystore.jks": "-rw-r-----", "keystore.pass": "-rw-r-----", "truststore.jks": "-rw-r--r--", "truststore.pass": "-rw-r-----"}},
			"PEM": {[]string{TypePEM}, map[string]string{
				"key.pem": "-rw-r-----", "keystore.pem": "-rw-r--r--", "truststore.pem": "-rw-r--r--", "keystore-combined.pem": "-rw-r-----"}},
			"all": {[]string{TypePEM, TypeP12, TypeJKS}, map[string]string{
				"keystore.p12": "-rw-r-----", "keystore.pass": "-rw-r-----", "truststore.p12": "-rw-r--r--", "truststore.pass": "-rw-r-----",
				"keystore.jks": "-rw-r-----", "truststore.jks": "-rw-r--r--",
				"key.pem": "-rw-r-----", "keystore.pem": "-rw-r--r--", "truststore.pem": "-rw-r--r--", "keystore-combined.pem": "-rw-r-----"}},
		} {
			t.Run(layout+" "+name, func(t *testing.T) {
				cfg := newConfig(t, layout, row.types...)
				v := mustOpen(t, cfg)
				_, err := v.Current()
				require.ErrorIs(t, err, ErrEmpty)

				b := newBundle()
				p := mustPublish(t, v, b)
				assert.True(t, p.Changed)
				assert.Len(t, p.Files, len(row.want))
				for _, path := range p.Files {
					info, err := os.Stat(path)
					require.NoError(t, err)
					assert.Equal(t, row.want[filepath.Base(path)], info.Mode().String(), path)
				}
				requireCurrent(t, cfg, b)
			})
		}
	}
}

func TestVolume_Publish_symlinkLooksLikeAKubeletsVolume(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	v := mustOpen(t, cfg)
	mustPublish(t, v, newBundle())
	first, err := os.Readlink(filepath.Join(cfg.Dir, "..data"))
	require.NoError(t, err)
	mustPublish(t, v, newBundle())
	second, err := os.Readlink(filepath.Join(cfg.Dir, "..data"))
	require.NoError(t, err)
	visible := map[string]string{
		"key.pem": "-> ..data/key.pem", "keystore.pem": "-> ..data/keystore.pem",
		"keystore-combined.pem": "-> ..data/keystore-combined.pem", "truststore.pem": "-> ..data/truststore.pem",
		"..data": "-> " + second, first: "drwxr-x---", second: "drwxr-x---",
	}
	require.Regexp(t, `^\.\.2026_03_01_12_00_\d\d\.000$`, second)
	require.Equal(t, visible, listing(t, cfg.Dir), "the generation before stays for readers that are in it")
}

func TestVolume_Publish_leavesAnUnchangedSetAlone(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			cfg := newConfig(t, layout, TypeP12, TypeJKS, TypePEM)
			b := newBundle()
			v := mustOpen(t, cfg)
			mustPublish(t, v, b)
			before := listing(t, cfg.Dir)
			for _, again := range []*Volume{v, mustOpen(t, cfg)} {
				again.step = func(op, path string) error {
					t.Errorf("%s %s", op, path)
					return nil
				}
				p := mustPublish(t, again, b)
				assert.False(t, p.Changed)
				assert.Len(t, p.Files, 10)
			}
			require.Equal(t, before, listing(t, cfg.Dir))
		})
	}
}

// Truststores are salted, but a renewal seldom changes who is trusted: then their readers are left alone.
func TestVolume_Publish_truststoresChangeOnlyWithTheTrustedCertificates(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypeP12, TypeJKS, TypePEM)
		v := mustOpen(t, cfg)
		mustPublish(t, v, newBundle())
		stores := func() (data []string, infos []os.FileInfo) {
			for _, name := range []string{"truststore.p12", "truststore.jks", "truststore.pem"} {
				info, err := os.Stat(filepath.Join(cfg.Dir, name))
				require.NoError(t, err)
				data, infos = append(data, readFile(t, cfg.Dir, name)), append(infos, info)
			}
			return data, infos
		}
		before, infos := stores()

		renewed := newBundle()
		mustPublish(t, v, renewed)
		after, infosAfter := stores()
		assert.Equal(t, before, after)
		for i := range infos {
			assert.Equal(t, layout == LayoutInplace, os.SameFile(infos[i], infosAfter[i]))
		}
		requireCurrent(t, cfg, renewed)

		root, _ := issue("Root", nil, nil)
		renewed.Trusted = append(renewed.Trusted, root)
		mustPublish(t, v, renewed)
		after, _ = stores()
		for i := range after {
			assert.NotEqual(t, before[i], after[i])
		}
		requireCurrent(t, cfg, renewed)
	}
}
