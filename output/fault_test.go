package output

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpen_whereAFileIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	for _, below := range []string{"", "certs", "a/b/c"} {
		_, err := Open(Config{Dir: filepath.Join(path, below), Types: []string{TypePEM}})
		var fileError *FileError
		require.ErrorAs(t, err, &fileError)
		require.EqualError(t, err, `creating directory "`+path+`": not a directory (it is a file: remove it or give another path)`)
	}
}

func TestOpen_danglingLink(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, "certs")
	require.NoError(t, os.Symlink("nowhere", path))
	_, err := Open(Config{Dir: path, Types: []string{TypePEM}})
	require.EqualError(t, err, `opening "`+path+`": no such file or directory (it is a link to a directory that does not exist)`)
	require.Equal(t, map[string]string{"certs": "-> nowhere"}, listing(t, top))
}

func TestOpen_unusableConfiguration(t *testing.T) {
	for want, change := range map[string]func(*Config){
		`output directory is "certs", want an absolute path`:                        func(c *Config) { c.Dir = "certs" },
		"no output type is given, want at least one of P12, JKS, PEM":               func(c *Config) { c.Types = nil },
		`output type is "p12", want one of P12, JKS, PEM`:                           func(c *Config) { c.Types = []string{TypePEM, "p12"} },
		`output layout is "flat", want symlink or inplace`:                          func(c *Config) { c.Layout = "flat" },
		`PKCS#12 profile is "old", want modern or legacy`:                           func(c *Config) { c.P12Profile = "old" },
		"file mode is 040, want permission bits with the owner's right to read":     func(c *Config) { c.FileMode = 0o040 },
		"file mode is 0104600, want permission bits with the owner's right to read": func(c *Config) { c.FileMode = 0o104600 },
	} {
		cfg := newConfig(t, LayoutSymlink, TypePEM)
		change(&cfg)
		_, err := Open(cfg)
		assert.EqualError(t, err, want)
		_, err = Read(cfg)
		assert.EqualError(t, err, want)
	}
}

func TestVolume_Publish_directoryInTheWayOfAFile_isMovedAside(t *testing.T) {
	for _, layout := range layouts {
		for _, name := range []string{"keystore.pem", "..data"} {
			cfg := newConfig(t, layout, TypePEM)
			v := mustOpen(t, cfg)
			require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, name), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, name, "kept"), nil, 0o600))
			before := listing(t, cfg.Dir)
			require.ErrorIs(t, InTheWay(cfg), syscall.EISDIR)
			require.Equal(t, before, listing(t, cfg.Dir))
			require.NoError(t, v.Writable())
			require.NoError(t, InTheWay(cfg))
			require.FileExists(t, filepath.Join(cfg.Dir, "..foreign-1", "kept"))
			b := newBundle()
			mustPublish(t, v, b)
			requireCurrent(t, cfg, b)

			for n := 2; n <= asideMost; n++ {
				require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, asidePrefix+strconv.Itoa(n)), 0o700))
			}
			require.NoError(t, os.RemoveAll(filepath.Join(cfg.Dir, name)))
			require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, name), 0o700))
			before = listing(t, cfg.Dir)
			want := `renaming "` + filepath.Join(cfg.Dir, name) + `": it is not certfetcher's, and nothing more is moved aside ` +
				`(remove it, and what is there as ..foreign-1 to ..foreign-16; find out who puts it there)`
			require.EqualError(t, v.Writable(), want)
			_, err := v.Publish(newBundle())
			require.EqualError(t, err, want)
			require.Equal(t, before, listing(t, cfg.Dir), "nothing is changed")
		}
	}
}

func TestVolume_Publish_removesWhatIsOursAndNothingElse(t *testing.T) {
	for _, layout := range layouts {
		for _, next := range layouts {
			t.Run(layout+" then "+next, func(t *testing.T) {
				cfg := newConfig(t, layout, TypeP12, TypeJKS)
				mustPublish(t, mustOpen(t, cfg), newBundle())
				require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "app.properties"), nil, 0o644))
				require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "truststore.jks.bak"), nil, 0o644))
				require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, "..app"), 0o755))
				require.NoError(t, os.Symlink("..data/gone", filepath.Join(cfg.Dir, "gone")))
				require.NoError(t, os.Symlink("/elsewhere", filepath.Join(cfg.Dir, "elsewhere")))

				cfg.Layout, cfg.Types = next, []string{TypePEM}
				mustPublish(t, mustOpen(t, cfg), newBundle())
				var visible []string
				for name := range listing(t, cfg.Dir) {
					if name != dataLink && name != noteName && !generationName.MatchString(name) {
						visible = append(visible, name)
					}
				}
				require.ElementsMatch(t, []string{"app.properties", "truststore.jks.bak", "..app", "elsewhere",
					"key.pem", "keystore.pem", "keystore-combined.pem", "truststore.pem"},
					without(visible, "gone"))
				_, goneErr := os.Lstat(filepath.Join(cfg.Dir, "gone"))
				require.ErrorIs(t, goneErr, fs.ErrNotExist, "a link into ..data is ours")
			})
		}
	}
}

// What has the name of a file of ours, but cannot be one, is its owner's, and no reason to begin anew each time.
func TestVolume_Publish_foreignThingsUnderNamesOfOtherTypes(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		v := mustOpen(t, cfg)
		require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, "keystore.jks"), 0o755))
		require.NoError(t, os.Symlink("/elsewhere", filepath.Join(cfg.Dir, "truststore.jks")))
		b := newBundle()
		require.True(t, mustPublish(t, v, b).Changed)
		names := listing(t, cfg.Dir)
		require.Equal(t, "drwxr-xr-x", names["keystore.jks"])
		require.Equal(t, "-> /elsewhere", names["truststore.jks"])
		requireCurrent(t, cfg, b)
		require.False(t, mustPublish(t, v, b).Changed)
		require.Equal(t, names, listing(t, cfg.Dir))
	}
}

func TestOpen_foreignFileInAGeneration(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	b := newBundle()
	mustPublish(t, mustOpen(t, cfg), b)
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "..data", ".key.pem.swp"), nil, 0o600))
	before := listing(t, cfg.Dir)
	requireCurrent(t, cfg, b)
	require.Equal(t, before, listing(t, cfg.Dir))
}

func without(names []string, name string) []string {
	var rest []string
	for _, n := range names {
		if n != name {
			rest = append(rest, n)
		}
	}
	return rest
}

// Whoever may write to the volume must not be able to make a privileged process write elsewhere.
func TestVolume_Publish_neverLeavesTheVolume(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		outside := t.TempDir()
		trap := func(op, path string) error {
			if op == files.OpCreate && filepath.Base(path) == "key.pem" {
				stage := filepath.Dir(path)
				return errors.Join(os.RemoveAll(stage), os.Symlink(outside, stage))
			}
			return nil
		}
		v, err := open(cfg, trap)
		require.NoError(t, err)
		_, err = v.Publish(newBundle())
		require.ErrorContains(t, err, "path escapes from parent")
		require.Empty(t, listing(t, outside))
	}
}

func TestOpen_withoutTheRightToWrite(t *testing.T) {
	dir, err := os.MkdirTemp("", "closed")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o555))
	cmd := child(t, "open symlink", filepath.Join(dir, "certs"))
	if os.Geteuid() == 0 {
		// Nothing is forbidden to root.
		cmd.Path = copyProgram(t, cmd.Path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	text, err := cmd.Output()
	require.NoError(t, err)
	require.Regexp(t, `^creating directory "`+dir+`/\.\.certs_tmp": permission denied \(running as uid \d+, gid \d+(, groups [\d ]+)?; directory "`+dir+
		`" has mode dr-xr-xr-x, uid \d+, gid \d+: give that user or group the right to write, in Kubernetes by fsGroup\)\n$`, string(text))
}

// copyProgram makes a copy that every user may run: go test builds into a closed directory.
func copyProgram(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	f, err := os.CreateTemp("/tmp", "output-test")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(f.Name())) })
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Chmod(0o755))
	require.NoError(t, f.Close())
	return f.Name()
}

// So may what a killed run had not committed. It is put aside, and removed as soon as somebody may.
func TestOpen_stageThatCannotBeRemoved(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		b := newBundle()
		mustPublish(t, mustOpen(t, cfg), b)
		stage := filepath.Join(cfg.Dir, stageDir)
		for range 2 {
			require.NoError(t, os.Mkdir(stage, 0o750))
			_, err := open(cfg, func(op, path string) error {
				if op == files.OpRemove {
					return syscall.EACCES
				}
				return nil
			})
			require.NoError(t, err)
			require.NoDirExists(t, stage)
		}
		requireCurrent(t, cfg, b)
		mustOpen(t, cfg)
		requireNothingLeft(t, listing(t, cfg.Dir), layout)
		requireCurrent(t, cfg, b)
	}
}

// An old generation may belong to an init container's user, whose files this one cannot remove.
func TestVolume_Publish_generationThatCannotBeRemoved(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	v := mustOpen(t, cfg)
	mustPublish(t, v, newBundle())
	mustPublish(t, v, newBundle())
	v.step = func(op, path string) error {
		if op == files.OpRemove {
			return syscall.EACCES
		}
		return nil
	}
	b := newBundle()
	mustPublish(t, v, b)
	bundle, err := v.Current()
	require.NoError(t, err)
	require.True(t, bundle.equal(b))
}

// The list in ..commit is read by whoever starts next.
func FuzzOpen_listOfACommit(f *testing.F) {
	f.Add("key.pem\nkeystore.pem")
	f.Add("")
	f.Add("../outside\n/etc/passwd\n..data\n.\n\x00\nkey.pem/..")
	f.Fuzz(func(t *testing.T, list string) {
		top := t.TempDir()
		cfg := Config{Dir: filepath.Join(top, "certs"), Types: []string{TypePEM}}
		require.NoError(t, os.MkdirAll(filepath.Join(cfg.Dir, commitDir), 0o700))
		for path, data := range map[string]string{"outside": "o", "certs/" + commitSet: list, "certs/..commit/key.pem": "new", "certs/key.pem": "old"} {
			require.NoError(t, os.WriteFile(filepath.Join(top, path), []byte(data), 0o600))
		}
		_, err := Open(cfg)
		require.NoError(t, err)
		require.Len(t, listing(t, top), 2)
		require.Equal(t, "o", readFile(t, top, "outside"))
		names := listing(t, cfg.Dir)
		if strings.Contains("\n"+list+"\n", "\nkey.pem\n") {
			require.Equal(t, map[string]string{"key.pem": "-rw-------"}, names)
			require.Equal(t, "new", readFile(t, cfg.Dir, "key.pem"))
		} else {
			require.Empty(t, names)
		}
	})
}
