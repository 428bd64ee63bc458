package inspect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReport_Plan_countsWholeDaysAndNamesTheRenewal(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]int{47 * time.Hour: 1, 48 * time.Hour: 2,
		time.Minute: 0, -time.Minute: -1} {
		r := &Report{Certificate: &Certificate{NotAfter: now.Add(left)}}
		r.Plan(now, now.Add(90*time.Minute+time.Millisecond).In(time.FixedZone("", 3600)))
		assert.Equal(t, want, *r.Certificate.DaysLeft, left)
		var text strings.Builder
		require.NoError(t, r.WriteText(&text, now))
		assert.Contains(t, text.String(), "Renewal:  2026-03-01T13:30:00Z, by a sidecar\n")
		text.Reset()
		require.NoError(t, r.WriteText(&text, now.Add(2*time.Hour)))
		assert.Contains(t, text.String(), "Renewal:  2026-03-01T13:30:00Z, by a sidecar (overdue)\n")
	}
	r := &Report{Certificate: &Certificate{NotAfter: now}}
	r.Plan(now, time.Time{})
	assert.Nil(t, r.Certificate.NextRenewal)
}

func TestDir_followsOnlyTheLinksOfTheLayout(t *testing.T) {
	for is, links := range map[string]map[string]string{
		"a file that is a link elsewhere":    {"key.pem": "../secret/key.pem"},
		"a generation outside of the volume": {"key.pem": "..data/key.pem", "..data": "../secret"},
	} {
		top := t.TempDir()
		volume, secret := filepath.Join(top, "volume"), filepath.Join(top, "secret")
		require.NoError(t, os.MkdirAll(secret, 0o700))
		require.NoError(t, os.Mkdir(volume, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(secret, "key.pem"), []byte("secret"), 0o600))
		for name, target := range links {
			require.NoError(t, os.Symlink(target, filepath.Join(volume, name)))
		}
		report, err := Dir(volume)
		require.NoError(t, err, is)
		require.Len(t, report.Files, 1, is)
		assert.Contains(t, report.Files[0].Problem, "which is not followed", is)
	}
}
