package truststore

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// kill is what a step panics with in place of kill -9. After it no step does anything more, so that no
// deferred clean-up can help.
type kill struct{}

// at makes the nth step die in the given way, and counts them all.
func at(n int, count *int, die func(op, path string)) func(op, path string) error {
	dead := false
	return func(op, path string) error {
		if dead {
			panic(kill{})
		}
		*count++
		if *count == n {
			dead = true
			die(op, path)
			panic(kill{})
		}
		return nil
	}
}

// halfWritten leaves what a write that was interrupted leaves.
func halfWritten(op, path string) {
	if op != "writing" {
		return
	}
	staged, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+temporaryMark+"*"))
	for _, name := range staged {
		_ = os.WriteFile(name, []byte("ha"), 0o600)
	}
}

// runKilled tells whether the run was killed, or ended.
func runKilled(t *testing.T, cfg Config, step func(op, path string) error) (killed bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(kill); !ours {
				panic(r)
			}
			killed = true
		}
	}()
	_, err := newRun(cfg, step).do(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return false
}

func TestRun_killedAtAnyStep(t *testing.T) {
	// A first run, and one after the sources were renewed.
	old, oldStore := "old", jks(t, trusted(t, "a", 0)...)
	for name, renewals := range map[string]int{"first run": 0, "run after a renewal": 1} {
		t.Run(name, func(t *testing.T) {
			scene := func() (place, Config) {
				p := newPlace(t)
				p.write("base.jks", oldStore)
				p.write("other.pem", pemOf(1))
				p.write("new.p12", []byte("new 0"))
				p.write("app.p12", []byte(old))
				cfg := p.merge("base.jks", "other.pem")
				cfg.Keystores = p.copying("new.p12", "app.p12", "new.p12", "fresh.p12").Keystores
				for n := range renewals {
					p.run(cfg)
					p.write("other.pem", pemOf(2+n))
					p.write("new.p12", []byte(fmt.Sprint("new ", n+1)))
				}
				return p, cfg
			}
			steps := 0
			p, cfg := scene()
			before := p.listing()
			require.False(t, runKilled(t, cfg, at(0, &steps, nil)))
			after := p.listing()
			require.Greater(t, steps, 30)
			for n := 1; n <= steps; n++ {
				for how, die := range map[string]func(string, string){"killed": func(string, string) {}, "killed writing": halfWritten} {
					p, cfg := scene()
					count, where := 0, ""
					require.True(t, runKilled(t, cfg, at(n, &count, func(op, path string) {
						where = fmt.Sprintf("%s at step %d: %s %s", how, n, op, filepath.Base(path))
						die(op, path)
					})))
					// What readers see is old or new, and whole.
					for _, file := range []string{"/base.jks", "/app.p12", "/fresh.p12"} {
						now := p.listing()[file].data
						require.Contains(t, []string{before[file].data, after[file].data}, now, "%s: %s", file, where)
					}
					// The next run ends where an undisturbed one does, backups included.
					require.False(t, runKilled(t, cfg, nil), where)
					settled := p.listing()
					require.Equal(t, names(after), names(settled), where)
					for file, e := range after {
						if filepath.Ext(file) != ".state" {
							require.Equal(t, e.data, settled[file].data, "%s: %s", file, where)
						}
						require.Equal(t, e.mode, settled[file].mode, "%s: %s", file, where)
					}
					require.Equal(t, string(oldStore), settled["/base.jks.bak"].data, where)
					require.Equal(t, old, settled["/app.p12.bak"].data, where)

					// Nor does a crash make the next renewal take this program's content for somebody else's.
					p.write("new.p12", []byte("renewed once more"))
					p.write("other.pem", pemOf(5))
					p.run(cfg)
					require.Equal(t, string(oldStore), string(p.read("base.jks.bak")), where)
					require.Equal(t, old, string(p.read("app.p12.bak")), where)
				}
			}
		})
	}
}

// A crash, then other sources than those that the killed run had read.
func TestRun_killedAndThenTheSourcesAreRenewed(t *testing.T) {
	scene := func() (place, Config) {
		p := newPlace(t)
		p.write("new", []byte("new 0"))
		p.write("app", []byte("old"))
		cfg := p.copying("new", "app")
		p.run(cfg)
		p.write("new", []byte("new 1"))
		return p, cfg
	}
	steps := 0
	_, cfg := scene()
	require.False(t, runKilled(t, cfg, at(0, &steps, nil)))
	for n := 1; n <= steps; n++ {
		p, cfg := scene()
		count := 0
		require.True(t, runKilled(t, cfg, at(n, &count, func(string, string) {})))
		p.write("new", []byte("new 2"))
		p.run(cfg)
		require.Equal(t, "old", string(p.read("app.bak")), "step %d", n)
		require.Equal(t, "new 2", string(p.read("app")), "step %d", n)
		require.Equal(t, []string{"app", "app.bak", "app.bak.state", "changeit.pass", "new"}, p.names(), "step %d", n)
	}
}

func names(listing map[string]entry) map[string]bool {
	list := map[string]bool{}
	for name := range listing {
		list[name] = true
	}
	return list
}
