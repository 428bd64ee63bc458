package output

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// A process that may write to the volume must not be able to make a privileged one write elsewhere.
func TestVolume_Publish_neverLeavesTheVolume(t *testing.T) {
	for _, moment := range []struct{ before, of, want string }{
		{files.OpMode, stageDir, "path escapes from parent"},
		{files.OpCreate, "key.pem", "no such file or directory"}, // in the directory that was removed
	} {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, outside := newConfig(t, layout, TypePEM), t.TempDir()
			replaced := false
			v := openWith(t, cfg, func(op, path string) error {
				if replaced || op != moment.before || filepath.Base(path) != moment.of {
					return nil
				}
				replaced = true
				stage := filepath.Join(cfg.Dir, stageDir)
				return errors.Join(os.RemoveAll(stage), os.Symlink(outside, stage))
			})
			_, err := v.Publish(newBundle())
			require.ErrorContains(t, err, moment.want)
			require.Empty(t, listing(t, outside))
		})
	}
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
		require.Equal(t, "o", readFile(top, "outside"))
		names := listing(t, cfg.Dir)
		if strings.Contains("\n"+list+"\n", "\nkey.pem\n") {
			require.Equal(t, map[string]string{"key.pem": "-rw-------"}, names)
			require.Equal(t, "new", readFile(cfg.Dir, "key.pem"))
		} else {
			require.Empty(t, names)
		}
	})
}

func TestNewPassword_isDrawnUniformlyFromTheAlphabet(t *testing.T) {
	const passwords = 20000
	counts := map[rune]int{}
	for range passwords {
		p := newPassword()
		require.Len(t, p, 24)
		for _, r := range p {
			counts[r]++
		}
	}
	require.Len(t, counts, 65)
	// Pearson's test, 64 degrees of freedom: a fair draw exceeds 130 once in 3 million runs; taking
	// remainders of bytes instead of rejecting would give more than 1000.
	expected := float64(passwords*24) / 65
	chi := 0.0
	for r, n := range counts {
		require.True(t, strings.ContainsRune(passwordAlphabet, r))
		chi += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	require.Less(t, chi, 130.0)
}
