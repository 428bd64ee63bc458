package truststore

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// kill is what a step panics with in place of kill -9. After it no step does anything more, so that no
// deferred clean-up can help.
type kill struct{}

// runKilled runs up to the nth step, and counts them all; 0 is a run to its end. With half, a write that is interrupted
// leaves a part of its content.
func runKilled(t *testing.T, cfg Config, n int, half bool) (steps int, where string) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && r != (kill{}) {
			panic(r)
		}
	}()
	_, err := newRun(cfg, func(op, path string) error {
		if steps++; n == 0 || steps < n {
			return nil
		}
		if steps == n {
			where = fmt.Sprintf("step %d, half a write: %t, %s %s", n, half, op, filepath.Base(path))
			if half && op == files.OpWrite {
				_ = os.WriteFile(path, []byte("ha"), 0o600)
			}
		}
		panic(kill{})
	}).do(cfg, noLog)
	require.NoError(t, err)
	return steps, where
}

func TestRun_killedAtAnyStep(t *testing.T) {
	// A first run, and one after the sources were renewed.
	for name, renewals := range map[string]int{"first run": 0, "run after a renewal": 1} {
		t.Run(name, func(t *testing.T) {
			renew := func(p place, n int) {
				p.putAll("other.pem", fmt.Sprint("=pem ", n), "key.p12", fmt.Sprint("new ", n))
			}
			scene := func() (place, Config) {
				p, cfg := newScene(t)
				cfg = p.copying(cfg, "key.p12", "fresh.p12")
				for n := range renewals {
					p.run(cfg)
					renew(p, 2+n)
				}
				return p, cfg
			}
			p, cfg := scene()
			before := p.listing()
			steps, _ := runKilled(t, cfg, 0, false)
			after := p.listing()
			require.Greater(t, steps, 30)
			backups := func(p place, where string) {
				require.Equal(t, "old", string(p.read("app.p12.bak")), where)
				require.Equal(t, made("jks a=0"), p.read("base.jks.bak"), where)
			}
			for n := 1; n <= 2*steps; n++ {
				p, cfg := scene()
				_, where := runKilled(t, cfg, (n+1)/2, n%2 == 0)
				require.NotEmpty(t, where)
				// What readers see is old or new, and whole.
				for _, file := range []string{"base.jks", "app.p12", "fresh.p12"} {
					require.Contains(t, []string{before[file].data, after[file].data},
						p.listing()[file].data, "%s: %s", file, where)
				}
				if n%3 == 0 { // the sources are other ones than the killed run read
					renew(p, 4)
				} else {
					// The next run ends where an undisturbed one does, backups included.
					p.run(cfg)
					settled := p.listing()
					require.Equal(t, slices.Sorted(maps.Keys(after)), p.names(), where)
					for file, e := range after {
						if filepath.Ext(file) != ".state" {
							require.Equal(t, e.data, settled[file].data, "%s: %s", file, where)
						}
						require.Equal(t, e.mode, settled[file].mode, "%s: %s", file, where)
					}
					backups(p, where)
				}
				// A crash does not make the next renewal take this program's content for that of another one.
				renew(p, 5)
				p.run(cfg)
				backups(p, where)
				require.Equal(t, "new 5", string(p.read("app.p12")), where)
				require.Equal(t, slices.Sorted(maps.Keys(after)), p.names(), where)
			}
		})
	}
}

// Whatever can be read as a truststore can be merged into, keeps what it had, and is then done.
func FuzzRun(f *testing.F) {
	for _, spec := range []string{"jks a=0 application=key", "p12 a=0", "clear a=0 b=1", "pem 0 1"} {
		f.Add(made(spec))
	}
	f.Add([]byte("text\n" + string(made("pem 0"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newPlace(t, "base", "")
		cfg := p.merge("base")
		require.NoError(t, os.WriteFile(p.path("base"), data, 0o600))
		base, err := newRun(cfg, nil).load(cfg.Truststores[0])
		if err != nil {
			return
		}
		others := []*store{{path: "other.pem", trusted: entries("=5")}}
		missing, _ := base.missing(others)
		if len(missing) == 0 {
			return
		}
		merged, err := base.with(missing, fixedTime)
		if err != nil {
			return
		}
		require.NoError(t, base.verify(merged, missing))
		require.NoError(t, os.WriteFile(p.path("base"), merged, 0o600))
		base, err = newRun(cfg, nil).load(cfg.Truststores[0])
		require.NoError(t, err)
		missing, _ = base.missing(others)
		require.Empty(t, missing, "what was added")
	})
}

// A state of any content names a backup of the destination, or none.
func FuzzReadState(f *testing.F) {
	f.Add([]byte("backup: app.bak\nwritten: " + digestOf(nil) + "\n"))
	f.Add([]byte("backup: none\nwritten: \n"))
	f.Add([]byte("backup: app.bak/../../etc/passwd\nwritten: \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "app")
		require.NoError(t, os.WriteFile(path+stateSuffix, data, 0o600))
		s, err := readState(path)
		require.NoError(t, err)
		if s.backup != "" {
			require.Equal(t, filepath.Dir(path), filepath.Dir(s.backup))
			require.NotEqual(t, path, s.backup)
		}
		require.NotContains(t, s.written, "")
	})
}
