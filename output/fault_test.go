package output

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

func TestOpen_whatIsInTheWayOfTheDirectory(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	writeFile(t, dir, "file", "")
	require.NoError(t, os.Symlink("nowhere", link))
	before := listing(t, dir)
	isFile := `creating directory "` + file + `": not a directory (it is a file: remove it or give another path)`
	for path, want := range map[string]string{
		file: isFile, file + "/certs": isFile, file + "/a/b/c": isFile,
		link: `opening "` + link + `": no such file or directory (it is a link to a directory that does not exist)`,
	} {
		_, err := Open(Config{Dir: path, Types: []string{TypePEM}})
		require.ErrorAs(t, err, new(*FileError))
		require.EqualError(t, err, want)
	}
	require.Equal(t, before, listing(t, dir))
}

func TestOpen_unusableConfiguration(t *testing.T) {
	const mode = "want permission bits with the owner's right to read"
	names := strings.Join(FormatNames(), ", ")
	for want, line := range map[string]string{
		`output directory is "certs", want an absolute path`:     "set Dir certs",
		"no output type is given, want at least one of " + names: "set Types",
		`output type is "p12", want one of ` + names:             "set Types PEM p12",
		`output layout is "flat", want symlink or inplace`:       "set Layout flat",
		`PKCS#12 profile is "old", want modern or legacy`:        "set P12Profile old",
		"file mode is 040, " + mode:                              "set FileMode 040",
		"file mode is 0104600, " + mode:                          "set FileMode 0104600",
	} {
		cfg := newConfig(t, LayoutSymlink, TypePEM)
		harm(t, &cfg, nil, line)
		_, err := Open(cfg)
		assert.EqualError(t, err, want)
		_, err = Read(cfg)
		assert.EqualError(t, err, want)
	}
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	cfg.Group = "no-such-group"
	_, err := Open(cfg)
	require.ErrorAs(t, err, new(*FileError))
	require.EqualError(t, err, `setting the group of "`+cfg.Dir+
		`": finding group "no-such-group": no group of that name in /etc/group, give its number`)
}

func TestVolume_Publish_directoryInTheWayOfAFile_isMovedAside(t *testing.T) {
	for _, name := range []string{"keystore.pem", dataLink} {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, b := newConfig(t, layout, TypePEM), newBundle()
			v, path := mustOpen(t, cfg), filepath.Join(cfg.Dir, name)
			require.NoError(t, makeDir(path))
			writeFile(t, path, "kept", "")
			before := listing(t, cfg.Dir)
			require.ErrorIs(t, InTheWay(cfg), syscall.EISDIR)
			require.Equal(t, before, listing(t, cfg.Dir))
			require.NoError(t, v.Writable())
			require.NoError(t, InTheWay(cfg))
			require.FileExists(t, filepath.Join(cfg.Dir, "..foreign-1", "kept"))
			mustPublish(t, v, b)
			requireCurrent(t, cfg, b)

			for n := 2; n <= asideMost; n++ {
				require.NoError(t, makeDir(filepath.Join(cfg.Dir, asidePrefix+strconv.Itoa(n))))
			}
			require.NoError(t, os.RemoveAll(path))
			require.NoError(t, makeDir(path))
			before = listing(t, cfg.Dir)
			want := `renaming "` + path + `": it is not certfetcher's, and nothing more is moved aside ` +
				`(remove it, and what is there as ..foreign-1 to ..foreign-16; find out who puts it there)`
			require.EqualError(t, v.Writable(), want)
			_, err := v.Publish(newBundle())
			require.EqualError(t, err, want)
			require.Equal(t, before, listing(t, cfg.Dir), "nothing is changed")
		})
	}
}

// What has the name of another format's file, but cannot be one, is another process's as well.
func TestVolume_Publish_removesWhatIsCertfetchersAndNothingElse(t *testing.T) {
	for _, next := range layouts {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, _, _ := published(t, layout, TypeP12)
			writeFile(t, cfg.Dir, "app.properties", "")
			writeFile(t, cfg.Dir, "truststore.jks.bak", "")
			writeFile(t, filepath.Join(cfg.Dir), "key.pem", "")
			if layout == LayoutSymlink {
				writeFile(t, filepath.Join(cfg.Dir, dataLink), ".key.pem.swp", "")
			}
			require.NoError(t, makeDir(filepath.Join(cfg.Dir, "..app")))
			require.NoError(t, makeDir(filepath.Join(cfg.Dir, "keystore.jks")))
			// such links are certfetcher's
			require.NoError(t, os.Symlink("..data/gone", filepath.Join(cfg.Dir, "gone")))
			require.NoError(t, makeLink(filepath.Join(cfg.Dir, "truststore.jks")))
			mustOpen(t, cfg)

			cfg.Layout, cfg.Types = next, []string{TypePEM}
			b, v := newBundle(), mustOpen(t, cfg)
			require.True(t, mustPublish(t, v, b).Changed)
			names := listing(t, cfg.Dir)
			visible := slices.DeleteFunc(slices.Collect(maps.Keys(names)), func(name string) bool {
				return name == dataLink || name == noteName || generationName.MatchString(name)
			})
			require.ElementsMatch(t, []string{"app.properties", "truststore.jks.bak", "..app",
				"keystore.jks", "truststore.jks",
				"key.pem", "keystore.pem", "keystore-combined.pem", "truststore.pem"}, visible)
			require.Equal(t, "drwx------", names["keystore.jks"])
			require.Equal(t, "-> /etc/passwd", names["truststore.jks"])
			requireCurrent(t, cfg, b)
			require.False(t, mustPublish(t, v, b).Changed)
			require.Equal(t, names, listing(t, cfg.Dir))
		})
	}
}

// A process that may write to the volume must not be able to make a privileged one write elsewhere.
func TestVolume_Publish_neverLeavesTheVolume(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, outside := newConfig(t, layout, TypePEM), t.TempDir()
		v := openWith(t, cfg, func(op, path string) error {
			if op == files.OpCreate && filepath.Base(path) == "key.pem" {
				stage := filepath.Dir(path)
				return errors.Join(os.RemoveAll(stage), os.Symlink(outside, stage))
			}
			return nil
		})
		_, err := v.Publish(newBundle())
		require.ErrorContains(t, err, "path escapes from parent")
		require.Empty(t, listing(t, outside))
	})
}

// A stage and an old generation may belong to an init container's user, whose files this one cannot remove. A stage is
// set aside, and removed by the next process that may.
func TestVolume_whatCannotBeRemoved_isInNoOnesWay(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, _, b := published(t, layout, TypePEM)
		stage := filepath.Join(cfg.Dir, stageDir)
		for range 2 {
			require.NoError(t, os.Mkdir(stage, 0o750))
			openWith(t, cfg, failing(files.OpRemove, syscall.EACCES))
			require.NoDirExists(t, stage)
		}
		requireCurrent(t, cfg, b)
		v := mustOpen(t, cfg)
		requireNothingLeft(t, listing(t, cfg.Dir), layout)
		if layout == LayoutSymlink {
			mustPublish(t, v, newBundle())
			v.step = failing(files.OpRemove, syscall.EACCES)
			b = newBundle()
			mustPublish(t, v, b)
		}
		requireCurrent(t, cfg, b)
	})
}

// The list in ..commit is read by the process that starts next.
func FuzzOpen_listOfACommit(f *testing.F) {
	f.Add("key.pem\nkeystore.pem")
	f.Add("")
	f.Add("../outside\n/etc/passwd\n..data\n.\n\x00\nkey.pem/..")
	f.Fuzz(func(t *testing.T, list string) {
		top := t.TempDir()
		cfg := Config{Dir: filepath.Join(top, "certs"), Types: []string{TypePEM}}
		require.NoError(t, os.MkdirAll(filepath.Join(cfg.Dir, commitDir), 0o700))
		for path, data := range map[string]string{
			"outside": "o", "certs/" + commitSet: list, "certs/..commit/key.pem": "new", "certs/key.pem": "old",
		} {
			writeFile(t, top, path, data)
		}
		mustOpen(t, cfg)
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
