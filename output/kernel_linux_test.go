package output

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// mountMemory mounts a file system of the given options on the volume; without the right to, it skips the test. The
// same errors are injected elsewhere, at every step.
func mountMemory(t *testing.T, cfg Config, options string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(cfg.Dir, 0o750))
	err := syscall.Mount("tmpfs", cfg.Dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no right to mount")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(cfg.Dir, 0)) })
}

func TestVolume_fileMountedInTheWay(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg := newConfig(t, layout, TypePEM)
		v, mounted := mustOpen(t, cfg), filepath.Join(cfg.Dir, "keystore.pem")
		writeFile(t, cfg.Dir, "keystore.pem", "")
		err := syscall.Mount(mounted, mounted, "", syscall.MS_BIND, "")
		if errors.Is(err, syscall.EPERM) {
			t.Skip("no right to mount")
		}
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(mounted, 0)) })

		before := listing(t, cfg.Dir)
		want := `renaming "` + mounted + `": device or resource busy ` +
			`(something is mounted under this name alone, as with a subPath: mount the whole directory)`
		require.EqualError(t, v.Writable(), want)
		_, err = v.Publish(newBundle())
		require.EqualError(t, err, want)
		require.Equal(t, before, listing(t, cfg.Dir))
	})
}

func TestVolume_readOnly(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, b := newConfig(t, layout, TypePEM), newBundle()
		mountMemory(t, cfg, "size=1m")
		mustPublish(t, mustOpen(t, cfg), b)
		require.NoError(t, syscall.Mount("", cfg.Dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

		requireCurrent(t, cfg, b)
		v := mustOpen(t, cfg)
		require.False(t, mustPublish(t, v, b).Changed)
		want := `creating directory "` + cfg.Dir + `/..stage": read-only file system ` +
			`(the file system is read-only: mount the volume without readOnly)`
		require.EqualError(t, v.Writable(), want)
		_, err := v.Publish(newBundle())
		require.EqualError(t, err, want)
		requireCurrent(t, cfg, b)
	})
}

// What Writable promises is kept: with every amount of room and of inodes, a publication succeeds where it said so.
func TestVolume_Writable_tellsBeforehandWhetherAPublicationHasRoom(t *testing.T) {
	for _, limit := range []string{"size=%dk,nr_inodes=1000", "size=10m,nr_inodes=%d"} {
		for _, first := range []bool{true, false} {
			eachLayout(t, func(t *testing.T, layout string) {
				yes, no := 0, 0
				for n := 4; n <= 200; n += 4 {
					cfg := newConfig(t, layout, TypePEM, TypeJKS)
					mountMemory(t, cfg, fmt.Sprintf(limit, n))
					v, err := Open(cfg)
					if err != nil {
						require.ErrorIs(t, err, syscall.ENOSPC)
						continue
					}
					if !first {
						if _, err := v.Publish(newBundle()); err != nil {
							continue // not even the set before had room
						}
						v = reopened(t, cfg)
					}
					if err := v.Writable(); err != nil {
						no++
						require.ErrorIs(t, err, syscall.ENOSPC)
						assert.ErrorContains(t, err, "a publication writes ")
						continue
					}
					yes++
					_, err = v.Publish(newBundle())
					require.NoError(t, err, "%s, first %t, "+limit, layout, first, n)
				}
				assert.NotZero(t, yes, "%s, first %t, %s", layout, first, limit)
				assert.NotZero(t, no, "%s, first %t, %s", layout, first, limit)
			})
		}
	}
}

// Old generations for slow readers are worth less than a new set.
func TestVolume_Publish_makesRoomOutOfOldGenerations(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	mountMemory(t, cfg, "size=80k")
	v := mustOpen(t, cfg)
	for range 12 {
		require.NoError(t, v.Writable())
		mustPublish(t, v, newBundle())
	}
	assert.Less(t, len(generations(t, v)), 1+oldMost)
	entries := fixture.Must(os.ReadDir(filepath.Join(cfg.Dir, dataLink)))
	assert.Len(t, entries, 5, "four files and the record of the request")
}

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
			name := fixture.Must(filepath.Rel(dir, path[1]))
			under[thread] = name
		}
		if strings.HasSuffix(rest, "= 0") {
			seen = append(seen, "sync "+under[thread])
		}
	}
	return seen
}
