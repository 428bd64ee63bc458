package output

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a machine that loses its power has on disk is what was synced. At some steps all that went before
// must be.
func TestVolume_Publish_syncsBeforeItGoesOn(t *testing.T) {
	for name, row := range map[string]struct {
		before, layout string
		checkpoints    map[string]int // steps, and how many of them must come with nothing undurable before
	}{
		// The link must not be durable before what it points to, nor the old set go before the new one holds.
		"symlink": {"", LayoutSymlink, map[string]int{files.OpLink + " ..data_tmp": 3, files.OpRemove + " a generation": 1}},
		// A file must not be replaced before the commit is durable, nor the commit go before all are in place.
		"inplace":              {"", LayoutInplace, map[string]int{files.OpRename + " truststore.pem": 1, files.OpRename + " keystore-combined.pem": 2, files.OpRemove + " ..files": 3}},
		"symlink over inplace": {LayoutInplace, LayoutSymlink, map[string]int{files.OpLink + " ..link_tmp": 1}},
		"inplace over symlink": {LayoutSymlink, LayoutInplace, map[string]int{files.OpRename + " truststore.pem": 1, files.OpRemove + " ..files": 3}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, row.layout, TypePEM)
			if row.before != "" {
				other := cfg
				other.Layout = row.before
				mustPublish(t, mustOpen(t, other), newBundle())
			}
			dirty := map[string]bool{} // files, and directories with names in them, that are not durable
			seen := map[string]int{}
			v, err := open(cfg, func(op, path string) error {
				dir, name := filepath.Dir(path), filepath.Base(path)
				if generationName.MatchString(name) {
					name = "a generation"
				}
				if _, isCheckpoint := row.checkpoints[op+" "+name]; isCheckpoint && len(dirty) == 0 {
					seen[op+" "+name]++
				}
				if op == files.OpRename && (name == commitDir || name == "a generation") {
					delete(dirty, dir)
					assert.Empty(t, dirty, "not durable in the stage that becomes %s", name)
				}
				switch op {
				case files.OpSync:
					delete(dirty, path)
				case files.OpCreate, files.OpMakeDir, files.OpLink, files.OpRename:
					dirty[dir] = true
				case files.OpRemove:
					maps.DeleteFunc(dirty, func(at string, _ bool) bool { return strings.HasPrefix(at, path) })
					dirty[dir] = true
				}
				if op == files.OpCreate || op == files.OpWrite || op == files.OpMode || op == files.OpGroup {
					dirty[path] = true
				}
				return nil
			})
			require.NoError(t, err)
			clear(dirty)
			now := start
			v.cfg.Now = func() time.Time { return now }
			for range 3 {
				now = now.Add(oldKept + time.Second)
				mustPublish(t, v, newBundle())
				// A generation that was removed may come back: the next start removes it again.
				delete(dirty, cfg.Dir)
				require.Empty(t, dirty, "not durable at the end")
			}
			for step, least := range row.checkpoints {
				assert.GreaterOrEqual(t, seen[step], least, "%s, with all before it durable", step)
			}
		})
	}
}

func TestVolume_Publish_secretsAreNeverMoreOpenThanAskedFor(t *testing.T) {
	for _, umask := range []int{0, 0o027, 0o777} {
		for _, mode := range []fs.FileMode{0o640, 0o600, 0o440, 0o644} {
			for _, layout := range layouts {
				cfg := newConfig(t, layout, TypePEM, TypeJKS)
				cfg.FileMode = mode
				before := syscall.Umask(umask)
				check := func(op, at string) error {
					requireClosed(t, cfg.Dir, mode, op+" "+at)
					return nil
				}
				v, err := open(cfg, check)
				if err == nil {
					_, err = v.Publish(newBundle())
				}
				if err == nil {
					_, err = v.Publish(newBundle())
				}
				syscall.Umask(before)
				require.NoError(t, err)
				requireClosed(t, cfg.Dir, mode, "at the end")
				for _, f := range wanted(cfg.Types) {
					info, err := os.Stat(filepath.Join(cfg.Dir, f.Name))
					require.NoError(t, err)
					require.Equal(t, f.mode(mode).String(), info.Mode().String(), "%s with umask %#o", f.Name, umask)
				}
			}
		}
	}
}

// requireClosed looks at everything under the directory.
func requireClosed(t *testing.T, dir string, secretMode fs.FileMode, when string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		public := slices.ContainsFunc(catalogue, func(f File) bool { return f.Name == entry.Name() && f.holds == certificates })
		public = public || entry.Name() == noteName
		if entry.IsDir() {
			require.Zero(t, info.Mode().Perm()&^DirectoryMode(secretMode), "%s is %s %s", path, info.Mode(), when)
		} else if info.Mode().IsRegular() && !public {
			require.Zero(t, info.Mode().Perm()&^(secretMode|0o600), "%s is %s %s", path, info.Mode(), when)
		}
		return nil
	})
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
}

func TestOpen_directoryIsMadeWithParentsAndAnExistingOneKeepsItsMode(t *testing.T) {
	top := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.Mkdir(top, 0o700))
	require.NoError(t, os.Chmod(top, 0o711|fs.ModeSetgid))
	cfg := Config{Dir: filepath.Join(top, "a", "b.c"), Types: []string{TypePEM}}
	mustPublish(t, mustOpen(t, cfg), newBundle())
	generation, err := os.Readlink(filepath.Join(cfg.Dir, "..data"))
	require.NoError(t, err)
	for path, want := range map[string]string{
		top: "dgrwx--x--x", filepath.Join(top, "a"): "dgrwxr-x---", cfg.Dir: "dgrwxr-x---", filepath.Join(cfg.Dir, generation): "dgrwxr-x---",
	} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode().String(), path)
	}
}

func TestOpen_killedWhileMakingTheDirectory(t *testing.T) {
	steps := 0
	_, err := open(newConfig(t, LayoutSymlink, TypePEM), at(0, &steps, nil))
	require.NoError(t, err)
	for n := 1; n <= steps; n++ {
		cfg, count := newConfig(t, LayoutSymlink, TypePEM), 0
		require.True(t, openKilled(cfg, at(n, &count, killed)))
		mustOpen(t, cfg)
		require.Equal(t, map[string]string{"certs": "drwxr-x---"}, listing(t, filepath.Dir(cfg.Dir)), "killed at step %d", n)
	}
}

// groups gives two groups that this process may hand files to.
func groups(t *testing.T) (own, other int) {
	own, other = os.Getegid(), os.Getegid()
	if os.Geteuid() == 0 {
		return own, 4242
	}
	all, err := os.Getgroups()
	require.NoError(t, err)
	for _, gid := range all {
		if gid != own {
			other = gid
		}
	}
	return own, other
}

func TestVolume_Publish_groupComesFromTheDirectoryOrTheConfiguration(t *testing.T) {
	own, other := groups(t)
	for name, row := range map[string]struct {
		group          string
		dirGroup, want int
	}{
		"inherited":                   {"", other, other},
		"configured by number":        {strconv.Itoa(other), own, other},
		"configured beside inherited": {strconv.Itoa(own), other, own},
	} {
		for _, layout := range layouts {
			t.Run(name+" "+layout, func(t *testing.T) {
				cfg := newConfig(t, layout, TypePEM)
				cfg.Group = row.group
				require.NoError(t, os.Mkdir(cfg.Dir, 0o770))
				require.NoError(t, os.Chown(cfg.Dir, -1, row.dirGroup))
				require.NoError(t, os.Chmod(cfg.Dir, 0o770|fs.ModeSetgid))
				// Until a file has its group, that which it is born with must see nothing of it.
				v, err := open(cfg, func(op, at string) error {
					if info, err := os.Lstat(at); err == nil && op == files.OpGroup {
						assert.Zero(t, info.Mode().Perm()&0o077, at)
					}
					return nil
				})
				require.NoError(t, err)
				b := newBundle()
				for _, path := range mustPublish(t, v, b).Files {
					info, err := os.Stat(path)
					require.NoError(t, err)
					assert.Equal(t, row.want, files.GroupOf(info), path)
					assert.NotZero(t, info.Mode()&0o040, path)
				}
				requireCurrent(t, cfg, b)
				require.False(t, mustPublish(t, v, b).Changed)
			})
		}
	}
}

func TestOpen_groupThatDoesNotExist(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	cfg.Group = "no-such-group"
	_, err := Open(cfg)
	var fileError *FileError
	require.ErrorAs(t, err, &fileError)
	require.EqualError(t, err, `setting the group of "`+cfg.Dir+`": finding group "no-such-group": no group of that name in /etc/group, give its number`)
}
