package output

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// What a machine that loses its power has on disk is what was synced. At some steps all that went before
// must be.
func TestVolume_Publish_syncsBeforeItGoesOn(t *testing.T) {
	replace, combined := files.OpRename+" truststore.pem", files.OpRename+" keystore-combined.pem"
	link, uncommit := files.OpLink+" ..data_tmp", files.OpRemove+" ..files"
	for name, row := range map[string]struct {
		before, layout string
		checkpoints    map[string]int // steps, and how many must come with nothing undurable before
	}{
		// The link must not be durable before what it points to, nor the old set go before the new one holds.
		"symlink": {"", LayoutSymlink, map[string]int{link: 3, files.OpRemove + " a generation": 1}},
		// A file must not be replaced before the commit is durable, nor the commit go before all are in place.
		"inplace":              {"", LayoutInplace, map[string]int{replace: 1, combined: 2, uncommit: 3}},
		"symlink over inplace": {LayoutInplace, LayoutSymlink, map[string]int{files.OpLink + " ..link_tmp": 1}},
		"inplace over symlink": {LayoutSymlink, LayoutInplace, map[string]int{replace: 1, uncommit: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, row.layout, TypePEM)
			if row.before != "" {
				other := cfg
				other.Layout = row.before
				mustPublish(t, mustOpen(t, other), newBundle())
			}
			dirty := map[string]bool{} // what is not durable: files, and directories with names in them
			seen := map[string]int{}
			v := openWith(t, cfg, func(op, path string) error {
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
				case files.OpCreate:
					dirty[dir], dirty[path] = true, true
				case files.OpMakeDir, files.OpLink, files.OpRename:
					dirty[dir] = true
				case files.OpRemove:
					maps.DeleteFunc(dirty, func(at string, _ bool) bool { return strings.HasPrefix(at, path) })
					dirty[dir] = true
				case files.OpWrite, files.OpMode, files.OpGroup:
					dirty[path] = true
				}
				return nil
			})
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
	before := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(before) })
	for _, umask := range []int{0, 0o027, 0o077} {
		syscall.Umask(umask)
		for _, secretMode := range []fs.FileMode{0o640, 0o600, 0o440, 0o644} {
			for _, layout := range layouts {
				cfg := newConfig(t, layout, TypePEM, TypeJKS)
				cfg.FileMode = secretMode
				v, err := open(cfg, func(op, at string) error {
					requireClosed(t, cfg.Dir, secretMode, op+" "+at)
					return nil
				})
				for range 2 {
					if err == nil {
						_, err = v.Publish(newBundle())
					}
				}
				require.NoError(t, err)
				requireClosed(t, cfg.Dir, secretMode, "at the end")
				for _, f := range filesOf(cfg.Types) {
					require.Equal(t, f.mode(secretMode), stat(v.path(f.Name)).Mode(), "umask %#o", umask)
				}
			}
		}
	}
}

// requireClosed looks at everything under the directory.
func requireClosed(t *testing.T, dir string, secretMode fs.FileMode, when string) {
	t.Helper()
	public := map[string]bool{noteName: true}
	for _, f := range catalogue {
		public[f.Name] = !f.Secret()
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		allowed := secretMode | 0o600
		if entry.IsDir() {
			allowed = DirectoryMode(secretMode)
		}
		if entry.IsDir() || info.Mode().IsRegular() && !public[entry.Name()] {
			require.Zero(t, info.Mode().Perm()&^allowed, "%s is %s %s", path, info.Mode(), when)
		}
		return nil
	})
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
}

func requireGroup(t *testing.T, want int, paths ...string) {
	t.Helper()
	for _, path := range paths {
		require.Equal(t, want, files.GroupOf(stat(path)), path)
		require.NotZero(t, stat(path).Mode()&0o040, path)
	}
}

func TestVolume_Publish_groupComesFromTheDirectoryOrTheConfiguration(t *testing.T) {
	own, other := os.Getegid(), os.Getegid()
	if os.Geteuid() == 0 {
		other = 4242
	}
	for name, row := range map[string]struct {
		group          string
		dirGroup, want int
		mode           fs.FileMode
	}{
		"inherited":                      {"", other, other, 0o770 | fs.ModeSetgid},
		"configured by number":           {strconv.Itoa(other), own, other, 0o770 | fs.ModeSetgid},
		"configured beside inherited":    {strconv.Itoa(own), other, own, 0o770 | fs.ModeSetgid},
		"configured, and none inherited": {strconv.Itoa(other), own, other, 0o770},
	} {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, b := newConfig(t, layout, TypePEM), newBundle()
			cfg.Group = row.group
			require.NoError(t, os.Mkdir(cfg.Dir, 0o770))
			require.NoError(t, os.Chown(cfg.Dir, -1, row.dirGroup))
			require.NoError(t, os.Chmod(cfg.Dir, row.mode))
			// Until a file has its group, that which it is born with must see nothing of it.
			v := openWith(t, cfg, func(op, at string) error {
				if info, err := os.Lstat(at); err == nil && op == files.OpGroup {
					assert.Zero(t, info.Mode().Perm()&0o077, "%s: %s", name, at)
				}
				return nil
			})
			requireGroup(t, row.want, mustPublish(t, v, b).Files...)
			requireCurrent(t, cfg, b)
			require.False(t, mustPublish(t, v, b).Changed)
		})
	}
}
