package output

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/stretchr/testify/require"
)

func TestVolume_MendModes_leavesContentAndTimeAlone(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		b := newBundle()
		mustPublish(t, mustOpen(t, cfg), b)
		key := filepath.Join(cfg.Dir, "key.pem")
		require.NoError(t, os.Chmod(key, 0o644))
		before, err := os.Stat(key)
		require.NoError(t, err)

		v := mustOpen(t, cfg)
		_, err = v.Current()
		require.NoError(t, err)
		corrected, err := v.CorrectModes()
		require.NoError(t, err)
		require.Equal(t, []string{key}, corrected)
		after, err := os.Stat(key)
		require.NoError(t, err)
		require.Equal(t, DefaultFileMode, after.Mode().Perm())
		require.Equal(t, before.ModTime(), after.ModTime())
		require.True(t, os.SameFile(before, after))
		requireCurrent(t, cfg, b)

		corrected, err = v.CorrectModes()
		require.NoError(t, err)
		require.Empty(t, corrected)
	}
}

func TestVolume_MendModes_group(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files to any group")
	}
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		mustPublish(t, mustOpen(t, cfg), newBundle())
		cfg.Group = "12345"
		v := mustOpen(t, cfg)
		_, err := v.Current()
		require.NoError(t, err)
		corrected, err := v.CorrectModes()
		require.NoError(t, err)
		require.Len(t, corrected, 4)
		for _, name := range corrected {
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.Equal(t, 12345, files.GroupOf(info))
			real, err := filepath.EvalSymlinks(name)
			require.NoError(t, err)
			info, err = os.Stat(filepath.Dir(real))
			require.NoError(t, err)
			require.True(t, layout == LayoutInplace || files.GroupOf(info) == 12345, "a group that cannot enter cannot read")
		}
	}
}
