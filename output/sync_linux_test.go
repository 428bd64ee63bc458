package output

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
)

// What the kernel is asked for, in order, as strace sees it: each file and its directory are synced before the
// rename that commits them, and the volume before the link that readers follow.
func TestVolume_Publish_syncsBeforeItRenames(t *testing.T) {
	strace := peer.Require(t, "strace")[0]
	files := []string{"..stage/key.pem", "..stage/keystore-combined.pem", "..stage/keystore.pem", "..stage/truststore.pem", "..stage"}
	for layout, commits := range map[string][]struct {
		to     string
		synced []string
	}{
		LayoutSymlink: {{"..GEN", files}, {"..data", []string{"."}}},
		LayoutInplace: {{"..commit", append(slices.Clone(files), "..stage/..files")}, {"truststore.pem", []string{"."}}},
	} {
		dir := filepath.Join(t.TempDir(), "certs")
		require.NoError(t, os.Mkdir(dir, 0o750))
		seen := traced(t, strace, child(t, "publish-once "+layout, dir), dir)
		for _, commit := range commits {
			at := slices.Index(seen, "rename "+commit.to)
			require.Positive(t, at, "%s is not renamed to: %q", commit.to, seen)
			for _, name := range commit.synced {
				require.Contains(t, seen[:at], "sync "+name, "before %s holds", commit.to)
			}
			seen = seen[at+1:]
		}
		require.Contains(t, seen, "sync .", "what was renamed last is durable at the end")
	}
}

var (
	straceLine = regexp.MustCompile(`^(\d+) +(?:<\.\.\. )?(fsync|rename\w*)(?: resumed>|\()(.*)$`)
	straceSync = regexp.MustCompile(`^\d+<([^>]*)>`)
	straceName = regexp.MustCompile(`"([^"]*)"[^"]*$`)
)

// traced runs a program under strace and lists its syncs, when they were done, and its renames, when they began,
// with names relative to dir.
func traced(t *testing.T, strace string, cmd *exec.Cmd, dir string) (seen []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	cmd.Args = append([]string{strace, "-f", "-y", "-s", "200", "-e", "trace=fsync,rename,renameat,renameat2", "-o", out, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = strace
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	log, err := os.ReadFile(out)
	require.NoError(t, err)
	under := map[string]string{} // the sync that each thread is in
	for line := range strings.Lines(string(log)) {
		m := straceLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		thread, call, rest := m[1], m[2], m[3]
		if call != "fsync" {
			if name := straceName.FindStringSubmatch(rest); name != nil { // not where it is resumed
				to := name[1]
				if isGeneration(to) {
					to = "..GEN"
				}
				seen = append(seen, "rename "+to)
			}
			continue
		}
		if path := straceSync.FindStringSubmatch(rest); path != nil {
			name, err := filepath.Rel(dir, path[1])
			require.NoError(t, err)
			under[thread] = name
		}
		if strings.HasSuffix(rest, "= 0") {
			seen = append(seen, "sync "+under[thread])
		}
	}
	return seen
}
