package output

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVolume_Restore_putsBackWhatAnotherProcessChanged(t *testing.T) {
	group := fmt.Sprintf("has group %d, want %d", os.Getegid()+1, os.Getegid())
	giveAway := func(path string) error { return os.Chown(path, -1, os.Getegid()+1) }
	removeAll := func(directory bool) func(string) error {
		return func(path string) error {
			err := os.RemoveAll(filepath.Dir(path))
			if err == nil && !directory {
				err = os.Mkdir(filepath.Dir(path), 0o750)
			}
			return err
		}
	}
	truncate := func(path string) error { return os.Truncate(path, 0) }
	chmod := func(mode os.FileMode) func(string) error {
		return func(path string) error { return os.Chmod(path, mode) }
	}
	for name, row := range map[string]struct {
		harm func(path string) error
		want string // empty: more than one
	}{
		"removed":            {os.Remove, "is missing"},
		"emptied":            {truncate, "has another content"},
		"opened to all":      {chmod(0o666), "has mode 0666, want 0640"},
		"closed":             {chmod(0o600), "has mode 0600, want 0640"},
		"given away":         {giveAway, group},
		"replaced by a file": {replaceBy(makeFile), ""},
		"replaced by a pipe": {replaceBy(makePipe), "is not what it should be"},
		"replaced by a link": {replaceBy(makeLink), "is not what it should be"},
		"everything removed": {removeAll(false), ""},
		"directory removed":  {removeAll(true), ""},
	} {
		if name == "given away" && os.Geteuid() != 0 {
			continue // only root may give a file to a group that it is not in
		}
		for _, read := range []bool{false, true} {
			eachLayout(t, func(t *testing.T, layout string) {
				cfg, b := newConfig(t, layout, TypeP12), newBundle()
				cfg.Group = fmt.Sprint(os.Getegid())
				v := mustOpen(t, cfg)
				mustPublish(t, v, b)
				if read {
					v = reopened(t, cfg)
				}
				before := map[string]string{}
				for _, f := range filesOf(cfg.Types) {
					before[f.Name] = readFile(t, cfg.Dir, f.Name)
				}
				require.NoError(t, row.harm(filepath.Join(cfg.Dir, "keystore.p12")), name)

				p := mustRestore(t, v)
				assert.Len(t, p.Files, 4)
				what := map[string]string{LayoutSymlink: "the link that it should be",
					LayoutInplace: "a regular file"}[layout]
				if want := strings.ReplaceAll(row.want, "what it should be", what); want == "" {
					assert.NotEmpty(t, p.Differences, name)
				} else {
					assert.Equal(t, []string{"keystore.p12 " + want}, p.Differences)
				}
				for name, data := range before {
					assert.Equal(t, data, readFile(t, cfg.Dir, name), "%s, byte for byte", name)
				}
				requireCurrent(t, cfg, b)
				requireNothingLeft(t, listing(t, cfg.Dir), name)
				requireClosed(t, cfg.Dir, DefaultFileMode, name)
				assert.False(t, mustRestore(t, v).Changed)
			})
		}
	}
}

func TestVolume_Restore_withNothingToPutBack(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	require.Equal(t, Publication{}, mustRestore(t, mustOpen(t, cfg)))
	require.Empty(t, listing(t, cfg.Dir))
}

// A reader that watches one file must not be woken by another's repair.
func TestVolume_Restore_inplaceTouchesOnlyTheDamagedFile(t *testing.T) {
	_, v, _ := published(t, LayoutInplace, TypeP12, TypePEM)
	before := map[string]os.FileInfo{}
	for _, path := range v.Files() {
		before[path] = stat(t, path)
	}
	damaged := v.path("truststore.p12")
	require.NoError(t, os.Remove(damaged))
	mustRestore(t, v)
	for path, was := range before {
		assert.Equal(t, path != damaged, os.SameFile(was, stat(t, path)), path)
	}
}

func TestVolume_Adopt_takesAnotherWholeSetOnly(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg := newConfig(t, layout, TypeP12, TypePEM)
		other := mustOpen(t, cfg)
		cfg.NotePending = true
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
		require.True(t, mustRestore(t, v).Changed)
		require.Equal(t, before, listing(t, cfg.Dir))
		requireCurrent(t, cfg, second)

		require.NoError(t, os.WriteFile(v.path("keystore.p12"), []byte("x"), 0o640))
		require.Nil(t, v.Adopt(any), "it is not a whole set")
		require.NoError(t, os.RemoveAll(cfg.Dir))
		require.Nil(t, v.Adopt(any))
		mustRestore(t, v)
		requireCurrent(t, cfg, second)
	})
}

func isPending(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, pendingName))
	return err == nil
}

func TestVolume_journal_recordsAPublicationUntilItIsNotified(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, _, _ := published(t, layout, TypePEM)
		require.False(t, isPending(cfg.Dir), "an init container has no application to notify")

		cfg.NotePending = true
		v := mustOpen(t, cfg)
		require.False(t, v.Pending())
		first := mustPublish(t, v, newBundle())
		require.Equal(t, "-rw-------", listing(t, cfg.Dir)[pendingName])
		second := mustPublish(t, v, newBundle())
		require.NoError(t, v.MarkNotified(first.Number))
		require.True(t, isPending(cfg.Dir), "the second is still pending")
		require.True(t, mustOpen(t, cfg).Pending())
		require.NoError(t, v.MarkNotified(second.Number))
		require.False(t, isPending(cfg.Dir))

		require.NoError(t, os.Remove(v.path("key.pem")))
		restored := mustRestore(t, v)
		require.True(t, isPending(cfg.Dir))
		require.NoError(t, v.MarkNotified(restored.Number))
		marked, err := v.MarkPending()
		require.NoError(t, err)
		require.True(t, isPending(cfg.Dir))

		again := mustOpen(t, cfg)
		require.True(t, again.Pending())
		require.NoError(t, again.MarkNotified(0))
		require.False(t, mustOpen(t, cfg).Pending())
		require.NoError(t, os.RemoveAll(cfg.Dir))
		require.NoError(t, v.MarkNotified(marked), "the record is gone with the directory")
		require.NoDirExists(t, cfg.Dir)
	})
}
