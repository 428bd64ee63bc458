package output

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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

func TestVolume_Publish_passwordsNeverChange(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypeP12)
		v := mustOpen(t, cfg)
		mustPublish(t, v, newBundle())
		key, trust := readFile(t, cfg.Dir, "keystore.pass"), readFile(t, cfg.Dir, "truststore.pass")
		require.Regexp(t, `^[A-Za-z0-9_$#]{24}$`, key)
		require.NotEqual(t, key, trust)
		same := func(what string) {
			require.Equal(t, key, readFile(t, cfg.Dir, "keystore.pass"), what)
			require.Equal(t, trust, readFile(t, cfg.Dir, "truststore.pass"), what)
		}
		mustPublish(t, v, newBundle())
		same("the same process")
		mustPublish(t, mustOpen(t, cfg), newBundle())
		same("another process")
		cfg.Types = []string{TypeJKS, TypeP12}
		mustPublish(t, mustOpen(t, cfg), newBundle())
		same("another type")
		cfg.Layout = map[string]string{LayoutSymlink: LayoutInplace, LayoutInplace: LayoutSymlink}[layout]
		mustPublish(t, mustOpen(t, cfg), newBundle())
		same("another layout")
		require.NoError(t, os.Remove(filepath.Join(cfg.Dir, "keystore.p12")))
		v = mustOpen(t, cfg)
		mustPublish(t, v, newBundle())
		same("a store that was lost")
		require.NoError(t, os.Remove(filepath.Join(cfg.Dir, "keystore.pass")))
		mustPublish(t, v, newBundle())
		same("a password file that was lost while the process knows it")
	}
}

func TestVolume_Publish_passwordsThatCurrentHasSeen(t *testing.T) {
	cfg := newConfig(t, LayoutInplace, TypeJKS)
	mustPublish(t, mustOpen(t, cfg), newBundle())
	before := readFile(t, cfg.Dir, "keystore.pass")
	v := mustOpen(t, cfg)
	_, err := v.Current()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "keystore.pass"), []byte("changeit"), 0o600))
	mustPublish(t, v, newBundle())
	require.Equal(t, before, readFile(t, cfg.Dir, "keystore.pass"))
}

func TestVolume_Publish_configuredPasswords(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypeP12)
	b := newBundle()
	mustPublish(t, mustOpen(t, cfg), b)
	trust := readFile(t, cfg.Dir, "truststore.pass")
	cfg.KeystorePassword = "changeit"
	v := mustOpen(t, cfg)
	require.True(t, mustPublish(t, v, b).Changed)
	assert.Equal(t, "changeit", readFile(t, cfg.Dir, "keystore.pass"))
	assert.Equal(t, trust, readFile(t, cfg.Dir, "truststore.pass"))
	requireCurrent(t, cfg, b)
}

func TestVolume_Publish_unusablePasswordFile(t *testing.T) {
	for name, row := range map[string]struct{ data, reason string }{
		"empty":          {"", "has 0 bytes, want a password of 6 to 1024"},
		"too short":      {"s3cr", "has 4 bytes, want a password of 6 to 1024"},
		"with a newline": {"s3cr3t-value\n", "has the byte 0x0a, want printable ASCII on one line with no line break at its end"},
		"not ASCII":      {"s3cr3t-välue", "has the byte 0xc3, want printable ASCII on one line with no line break at its end"},
		"a large file":   {strings.Repeat("s3cr3t", 200), "has 1200 bytes, want a password of 6 to 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, LayoutInplace, TypeJKS)
			var log bytes.Buffer
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			require.NoError(t, os.Mkdir(cfg.Dir, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "keystore.pass"), []byte(row.data), 0o600))
			b := newBundle()
			mustPublish(t, mustOpen(t, cfg), b)
			assert.Regexp(t, `^[A-Za-z0-9_$#]{24}$`, readFile(t, cfg.Dir, "keystore.pass"))
			assert.Contains(t, log.String(), `level=WARN msg="the password file is unusable, making a new password" path=`+cfg.Dir+`/keystore.pass error="`+row.reason+`"`)
			assert.NotContains(t, log.String(), "s3cr")
			requireCurrent(t, cfg, b)
		})
	}
}
