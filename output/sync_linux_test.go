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

	"github.com/certfetcher/certfetcher/test/fixture"
)

// What the kernel is asked for, in order, as strace sees it: each file and its directory are synced before the
// rename that commits them, and the volume before the link that readers follow.
func TestVolume_Publish_syncsBeforeItRenames(t *testing.T) {
	strace := fixture.RequirePrograms(t, "strace")[0]
	files := []string{"..stage/key.pem", "..stage/keystore-combined.pem", "..stage/keystore.pem",
		"..stage/truststore.pem", "..stage"}
	type commit struct {
		to     string
		synced []string
	}
	for layout, commits := range map[string][]commit{
		LayoutSymlink: {{"..GEN", files}, {dataLink, []string{"."}}},
		LayoutInplace: {{commitDir, append(slices.Clone(files), "..stage/..files")}, {"truststore.pem", []string{"."}}},
	} {
		dir := filepath.Join(t.TempDir(), "certs")
		require.NoError(t, os.Mkdir(dir, 0o750))
		seen := trace(t, strace, layout, dir)
		for _, c := range commits {
			at := slices.Index(seen, "rename "+c.to)
			require.Positive(t, at, "%s is not renamed to: %q", c.to, seen)
			for _, name := range c.synced {
				require.Contains(t, seen[:at], "sync "+name, "before %s holds", c.to)
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

	anyGeneration = regexp.MustCompile(`^\.\.\d{4}_.*`)
)

// trace has another process publish under strace and lists its syncs, when they were done, and its renames, when they
// began, with names relative to dir.
func trace(t *testing.T, strace, layout, dir string) (seen []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command(strace, "-f", "-y", "-s", "200", "-e",
		"trace=fsync,rename,renameat,renameat2", "-o", out, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+layout+" "+dir)
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	under := map[string]string{} // the sync that each thread is in
	for line := range strings.Lines(readFile(filepath.Dir(out), "strace")) {
		m := straceLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		thread, call, rest := m[1], m[2], m[3]
		if call != "fsync" {
			if name := straceName.FindStringSubmatch(rest); name != nil { // not where it is resumed
				seen = append(seen, "rename "+anyGeneration.ReplaceAllString(name[1], "..GEN"))
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
