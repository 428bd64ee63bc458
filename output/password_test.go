package output

import (
	"bytes"
	"log/slog"
	"os"
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

func TestVolume_Publish_unusablePasswordFile(t *testing.T) {
	notPrintable := ", want printable ASCII on one line with no line break at its end"
	for data, reason := range map[string]string{
		"":                            "has 0 bytes, want a password of 6 to 1024",
		"s3cr":                        "has 4 bytes, want a password of 6 to 1024",
		"s3cr3t-value\n":              "has the byte 0x0a" + notPrintable,
		"s3cr3t-välue":                "has the byte 0xc3" + notPrintable,
		strings.Repeat("s3cr3t", 200): "has 1200 bytes, want a password of 6 to 1024",
	} {
		cfg, b := newConfig(t, LayoutInplace, TypeJKS), newBundle()
		var log bytes.Buffer
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		require.NoError(t, os.Mkdir(cfg.Dir, 0o755))
		writeFile(t, cfg.Dir, keystorePass, data)
		mustPublish(t, mustOpen(t, cfg), b)
		assert.Regexp(t, `^[A-Za-z0-9_$#]{24}$`, readFile(cfg.Dir, keystorePass))
		assert.Contains(t, log.String(), `level=WARN msg="the password file is unusable, making a new password" path=`+
			cfg.Dir+`/keystore.pass error="`+reason+`"`)
		assert.NotContains(t, log.String(), "s3cr")
		requireCurrent(t, cfg, b)
	}
}
