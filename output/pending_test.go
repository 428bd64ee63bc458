package output

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func isPending(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, pendingName))
	return err == nil
}

func TestVolume_journal_notesAPublicationUntilItIsTold(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			cfg := newConfig(t, layout, TypePEM)
			mustPublish(t, mustOpen(t, cfg), newBundle()) // an init container has nobody to tell
			require.False(t, isPending(cfg.Dir))

			cfg.Journal = true
			v := mustOpen(t, cfg)
			require.False(t, v.Pending())
			first := mustPublish(t, v, newBundle())
			require.Equal(t, "-rw-------", listing(t, cfg.Dir)[pendingName])
			second := mustPublish(t, v, newBundle())
			require.NoError(t, v.MarkNotified(first.Number))
			require.True(t, isPending(cfg.Dir), "the second is not told yet")
			require.True(t, mustOpen(t, cfg).Pending())
			require.NoError(t, v.MarkNotified(second.Number))
			require.False(t, isPending(cfg.Dir))

			require.NoError(t, os.Remove(filepath.Join(cfg.Dir, "key.pem")))
			restored, err := v.Restore()
			require.NoError(t, err)
			require.True(t, isPending(cfg.Dir))
			require.NoError(t, v.MarkNotified(restored.Number))
			owed, err := v.MarkPending()
			require.NoError(t, err)
			require.True(t, isPending(cfg.Dir))

			again := mustOpen(t, cfg)
			require.True(t, again.Pending())
			require.NoError(t, again.MarkNotified(0))
			require.False(t, mustOpen(t, cfg).Pending())
			require.NoError(t, os.RemoveAll(cfg.Dir))
			require.NoError(t, v.MarkNotified(owed), "the note is gone with the directory")
			require.NoDirExists(t, cfg.Dir)
		})
	}
}

// Whatever a reader may see of a new set, the note that nobody was told of it is there before.
func TestVolume_journal_killedAtAnyStep_forgetsNothing(t *testing.T) {
	for name, stage := range scenes(t) {
		t.Run(name, func(t *testing.T) {
			steps := 0
			s := stage()
			s.after.Journal = true
			_, _ = publishBroken(s.after, s.new, at(0, &steps, nil))
			noted := 0
			for n := 1; n <= steps; n++ {
				s, count := stage(), 0
				s.after.Journal = true
				_, wasKilled := publishBroken(s.after, s.new, at(n, &count, killed))
				require.True(t, wasKilled)
				was := isPending(s.after.Dir)
				v := mustOpen(t, s.after) // completes or undoes it
				bundle, err := v.Current()
				if err == nil && bundle.equal(s.new) {
					require.True(t, was, "killed at step %d", n)
					require.True(t, v.Pending())
					noted++
				}
			}
			assert.Positive(t, noted)
		})
	}
}

// Such a publication counts: what readers come to see of it is reported by whatever completes it.
func TestVolume_Publish_failedAfterItsCommit_isCompletedAndReported(t *testing.T) {
	for _, layout := range layouts {
		for name, complete := range map[string]func(v *Volume) error{
			"by Restore":                func(*Volume) error { return nil },
			"by Writable, then Restore": (*Volume).Writable,
		} {
			t.Run(layout+" "+name, func(t *testing.T) {
				cfg := newConfig(t, layout, TypePEM)
				cfg.Journal = true
				v := mustOpen(t, cfg)
				mustPublish(t, v, newBundle())
				committed := false
				v.step = func(op, path string) error {
					if committed {
						return syscall.EIO
					}
					committed = op == files.OpRename && (filepath.Base(path) == commitDir || filepath.Base(path) == dataLink)
					return nil
				}
				renewed := newBundle()
				_, err := v.Publish(renewed)
				var incomplete *IncompleteError
				require.ErrorAs(t, err, &incomplete)
				require.ErrorIs(t, err, syscall.EIO)
				require.ErrorContains(t, err, "the new files are committed, but not all of them are in place: ")
				v.step = nil
				require.NoError(t, complete(v))
				p, err := v.Restore()
				require.NoError(t, err)
				assert.True(t, p.Changed)
				assert.True(t, isPending(cfg.Dir))
				requireCurrent(t, cfg, renewed)
				p, err = v.Restore()
				require.NoError(t, err)
				assert.False(t, p.Changed)
			})
		}
	}
}

func TestVolume_Publish_failedBeforeItsCommit_saysNothingOfACommit(t *testing.T) {
	cfg := newConfig(t, LayoutInplace, TypePEM)
	v := mustOpen(t, cfg)
	v.step = func(op, _ string) error {
		if op == files.OpSync {
			return syscall.EIO
		}
		return nil
	}
	_, err := v.Publish(newBundle())
	var incomplete *IncompleteError
	require.NotErrorAs(t, err, &incomplete)
	require.ErrorIs(t, err, syscall.EIO)
}

func TestVolume_Restore_saysWhatDiffered(t *testing.T) {
	another := os.Getegid() + 1
	for name, row := range map[string]struct {
		harm func(path string) error
		want map[string]string // by layout
	}{
		"removed":     {os.Remove, map[string]string{LayoutSymlink: "is missing", LayoutInplace: "is missing"}},
		"overwritten": {func(path string) error { return os.Truncate(path, 1) }, map[string]string{LayoutSymlink: "has another content", LayoutInplace: "has another content"}},
		"opened":      {func(path string) error { return os.Chmod(path, 0o666) }, map[string]string{LayoutSymlink: "has mode 0666, want 0640", LayoutInplace: "has mode 0666, want 0640"}},
		"given away": {func(path string) error { return os.Chown(path, -1, another) }, map[string]string{
			LayoutSymlink: fmt.Sprintf("has group %d, want %d", another, os.Getegid()), LayoutInplace: fmt.Sprintf("has group %d, want %d", another, os.Getegid())}},
		"replaced": {func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink("/etc/passwd", path)
		}, map[string]string{LayoutSymlink: "is not the link that it should be", LayoutInplace: "is not a regular file"}},
	} {
		for _, layout := range layouts {
			t.Run(layout+" "+name, func(t *testing.T) {
				if name == "given away" && os.Geteuid() != 0 {
					t.Skip("only root may give a file to a group that it is not in")
				}
				cfg := newConfig(t, layout, TypeP12)
				cfg.Group = fmt.Sprint(os.Getegid())
				v := mustOpen(t, cfg)
				mustPublish(t, v, newBundle())
				require.NoError(t, row.harm(filepath.Join(cfg.Dir, "keystore.p12")))
				p, err := v.Restore()
				require.NoError(t, err)
				assert.Equal(t, []string{"keystore.p12 " + row.want[layout]}, p.Differences)
			})
		}
	}
}

func TestVolume_Adopt_takesAnotherWholeSetOnly(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			cfg := newConfig(t, layout, TypeP12, TypePEM)
			other := mustOpen(t, cfg)
			cfg.Journal = true
			v := mustOpen(t, cfg)
			first, second := newBundle(), newBundle()
			any := func(Bundle) bool { return true }
			require.Nil(t, v.Adopt(any), "nothing is published")
			require.NoError(t, v.MarkNotified(mustPublish(t, v, first).Number))
			require.Nil(t, v.Adopt(any), "it is the published one")
			mustPublish(t, other, second)
			require.Nil(t, v.Adopt(func(b Bundle) bool { return !b.equal(second) }), "it is not wanted")
			adopted := v.Adopt(any)
			require.NotNil(t, adopted)
			require.True(t, adopted.equal(second))
			require.True(t, isPending(cfg.Dir), "the application of this process knows nothing of it")
			before := listing(t, cfg.Dir)
			p, err := v.Restore()
			require.NoError(t, err)
			require.True(t, p.Changed)
			require.Equal(t, before, listing(t, cfg.Dir))
			requireCurrent(t, cfg, second)

			require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "keystore.p12"), []byte("x"), 0o640))
			require.Nil(t, v.Adopt(any), "it is no whole set")
			require.NoError(t, os.RemoveAll(cfg.Dir))
			require.Nil(t, v.Adopt(any))
			_, err = v.Restore()
			require.NoError(t, err)
			requireCurrent(t, cfg, second)
		})
	}
}
