package output

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVolume_Restore_putsBackWhatSomebodyChanged(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"a visible file removed":    func(dir string) error { return os.Remove(filepath.Join(dir, "keystore.pass")) },
		"a file overwritten":        func(dir string) error { return os.WriteFile(filepath.Join(dir, "keystore.p12"), []byte("x"), 0o600) },
		"a file emptied":            func(dir string) error { return os.Truncate(filepath.Join(dir, "truststore.p12"), 0) },
		"a file opened to all":      func(dir string) error { return os.Chmod(filepath.Join(dir, "keystore.p12"), 0o666) },
		"a file that others cannot": func(dir string) error { return os.Chmod(filepath.Join(dir, "truststore.p12"), 0o600) },
		"everything in it removed":  removeContent,
		"the directory removed":     os.RemoveAll,
		"a file replaced by a pipe": func(dir string) error {
			return replace(dir, func(path string) error { return syscall.Mkfifo(path, 0o600) })
		},
		"a file replaced by another": func(dir string) error {
			return replace(dir, func(path string) error { return os.WriteFile(path, nil, 0o640) })
		},
		"a file replaced by a link": func(dir string) error {
			return replace(dir, func(path string) error { return os.Symlink("/etc/passwd", path) })
		},
	} {
		for _, layout := range layouts {
			for _, remembered := range []string{"published", "read"} {
				t.Run(name+" "+layout+" "+remembered, func(t *testing.T) {
					cfg := newConfig(t, layout, TypeP12)
					b := newBundle()
					v := mustOpen(t, cfg)
					mustPublish(t, v, b)
					if remembered == "read" {
						v = mustOpen(t, cfg)
						_, err := v.Current()
						require.NoError(t, err)
					}
					before := map[string]string{}
					for _, f := range wanted(cfg.Types) {
						before[f.Name] = readFile(t, cfg.Dir, f.Name)
					}
					require.NoError(t, harm(cfg.Dir))

					p, err := v.Restore()
					require.NoError(t, err)
					assert.True(t, p.Changed)
					assert.Len(t, p.Files, 4)
					for name, data := range before {
						assert.Equal(t, data, readFile(t, cfg.Dir, name), "%s is put back byte for byte", name)
					}
					requireCurrent(t, cfg, b)
					requireNothingLeft(t, listing(t, cfg.Dir), name)
					requireClosed(t, cfg.Dir, DefaultFileMode, name)

					p, err = v.Restore()
					require.NoError(t, err)
					assert.False(t, p.Changed)
				})
			}
		}
	}
}

func removeContent(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if err == nil {
			err = os.RemoveAll(filepath.Join(dir, entry.Name()))
		}
	}
	return err
}

func replace(dir string, make func(path string) error) error {
	path := filepath.Join(dir, "keystore.p12")
	if err := os.Remove(path); err != nil {
		return err
	}
	return make(path)
}

func TestVolume_Restore_withNothingToPutBack(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	p, err := mustOpen(t, cfg).Restore()
	require.NoError(t, err)
	require.Equal(t, Publication{}, p)
	require.Empty(t, listing(t, cfg.Dir))
}

// A reader that watches one file must not be woken by another's repair.
func TestVolume_Restore_inplaceTouchesOnlyTheDamagedFile(t *testing.T) {
	cfg := newConfig(t, LayoutInplace, TypeP12, TypePEM)
	v := mustOpen(t, cfg)
	paths := mustPublish(t, v, newBundle()).Files
	before := map[string]os.FileInfo{}
	for _, path := range paths {
		info, err := os.Stat(path)
		require.NoError(t, err)
		before[path] = info
	}
	damaged := filepath.Join(cfg.Dir, "truststore.p12")
	require.NoError(t, os.Remove(damaged))
	_, err := v.Restore()
	require.NoError(t, err)
	for _, path := range paths {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, path != damaged, os.SameFile(before[path], info), path)
	}
}

// After a failed renewal the old set is what belongs on the volume.
func TestVolume_Restore_afterAFailedPublication(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		old := newBundle()
		v := mustOpen(t, cfg)
		mustPublish(t, v, old)
		v.step = func(op, path string) error {
			if op == files.OpSync {
				return syscall.EIO
			}
			return nil
		}
		_, err := v.Publish(newBundle())
		require.ErrorIs(t, err, syscall.EIO)
		v.step = nil
		p, err := v.Restore()
		require.NoError(t, err)
		assert.False(t, p.Changed)
		requireCurrent(t, cfg, old)
	}
}
