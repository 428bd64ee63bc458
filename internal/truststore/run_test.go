package truststore

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

func TestRun_secondRunChangesNothing(t *testing.T) {
	for kind, encode := range baseOf {
		p := newPlace(t, kind, encode(trusted("a", 0)...), "other.jks", jks(trusted("a", 1)...),
			"new", "new", "app", "old")
		cfg := p.copying(p.merge(kind, "other.jks"), "new", "app", "new", "none/fresh")
		p.run(cfg)
		first := p.listing()

		// A later clock shows any file that is written again, even with the same content.
		cfg.Now = func() time.Time { return fixedTime.Add(time.Hour) }
		steps := 0
		count := func(string, string) error { steps++; return nil }
		result, err := newRun(cfg, count).do(cfg, slog.New(slog.DiscardHandler))

		require.NoError(t, err, kind)
		assert.Equal(t, Result{}, result, kind)
		assert.Zero(t, steps, kind) // so that it needs no right to write, either
		assert.Equal(t, first, p.listing(), kind)
	}
}

func TestRun_copies(t *testing.T) {
	p := newPlace(t, "base.pem", pemOf(0), "other.pem", pemOf(1), "app.pem", "old", "new.pass",
		"new", "app.pass", "old")
	cfg := p.copying(p.merge("base.pem", "other.pem"), "base.pem", "app.pem", "new.pass", "app.pass")

	result := p.run(cfg)

	assert.Equal(t, p.read("base.pem"), p.read("app.pem"), "what was merged before")
	assert.Equal(t, map[string]int{"A": 0, "B": 1}, p.contents("app.pem"))
	assert.Equal(t, "new", string(p.read("app.pass")))
	for i, name := range []string{"app.pem", "app.pass"} {
		assert.Equal(t, "old", string(p.read(name+".bak")))
		assert.Equal(t, Replaced{p.path(name), p.path(name + ".bak")}, result.Replaced[i+1])
	}
	assert.False(t, p.run(cfg).Changed())
}

func TestRun_newDestinationIsClosedToOthersAndHasNoBackup(t *testing.T) {
	p := newPlace(t, "new.p12", "new")
	require.NoError(t, os.Chmod(p.path("new.p12"), 0o644))
	const name = "not/yet/there/app.p12"

	result := p.run(p.copying(Config{}, "new.p12", name))

	assert.Equal(t, []Replaced{{Path: p.path(name)}}, result.Replaced)
	listing := p.listing()
	assert.Equal(t, os.FileMode(0o640), listing[name].mode)
	assert.Equal(t, os.FileMode(0o640), listing[name+".bak.state"].mode)
	assert.Equal(t, os.ModeDir|0o750, listing[filepath.Dir(name)].mode)
	assert.NotContains(t, listing, name+".bak")
}

func TestRun_ownerOfTheDestinationStays_modesAreANDed(t *testing.T) {
	for name, test := range map[string]struct {
		source, destination, want os.FileMode
		warning                   string
	}{
		"both alike":            {0o640, 0o640, 0o640, ""},
		"the source is closed":  {0o600, 0o644, 0o600, "its group and others can no longer read it"},
		"the destination is":    {0o644, 0o600, 0o600, ""},
		"each has what one has": {0o640, 0o604, 0o600, "others can no longer read it"},
		"a right to write goes": {0o440, 0o660, 0o440, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "new.p12", "new", "app.p12", "old")
			uid, gid := os.Geteuid(), os.Getegid()
			if uid == 0 {
				uid, gid = 1234, 4321
				require.NoError(t, os.Chown(p.path("app.p12"), uid, gid))
			}
			require.NoError(t, os.Chmod(p.path("new.p12"), test.source))
			require.NoError(t, os.Chmod(p.path("app.p12"), test.destination))

			_, log := p.runLogged(p.copying(Config{}, "new.p12", "app.p12"))

			for name, mode := range map[string]os.FileMode{
				"app.p12": test.want, "app.p12.bak": test.destination, "app.p12.bak.state": test.want,
			} {
				info, err := os.Stat(p.path(name))
				require.NoError(t, err)
				assert.Equal(t, mode, info.Mode(), name)
				assert.Equal(t, uint32(uid), info.Sys().(*syscall.Stat_t).Uid, name)
				assert.Equal(t, uint32(gid), info.Sys().(*syscall.Stat_t).Gid, name)
			}
			if test.warning == "" {
				assert.NotContains(t, log, "level=WARN")
			} else {
				assert.Contains(t, log, test.warning)
			}
		})
	}
}

func TestRun_linkStaysOneAndItsTargetIsReplaced(t *testing.T) {
	// The kubelet's volumes and Debian's cacerts are such links.
	p := newPlace(t, "other.pem", pemOf(1))
	require.NoError(t, os.Mkdir(p.path("real"), 0o755))
	p.write("real/cacerts", jks(trusted("a", 0)...))
	require.NoError(t, os.Symlink("real/cacerts", p.path("cacerts")))

	p.run(p.merge("cacerts", "other.pem"))

	target, err := os.Readlink(p.path("cacerts"))
	require.NoError(t, err)
	assert.Equal(t, "real/cacerts", target)
	assert.Len(t, p.contents("real/cacerts"), 2)
	assert.FileExists(t, p.path("cacerts.bak"))
	assert.False(t, p.run(p.merge("cacerts", "other.pem")).Changed())
}

// A backup is the content that another program or a person put in the destination's place last. Each row follows a run
// that replaced first by "new 1", and comes before another one.
func TestRun_backup(t *testing.T) {
	const first, second, third = "of the application", "put there later", "merged by another program"
	files := func(names ...any) func(place) { return func(p place) { p.putAll(names...) } }
	for sentence, row := range map[string]struct {
		then func(place)
		want map[string]string
	}{
		"stays when the source is renewed": {files("new", "new 2"),
			map[string]string{"app": "new 2", "app.bak": first}},
		"stays when the source is renewed twice": {func(p place) {
			p.write("new", "new 2")
			p.run(p.copying(Config{}, "new", "app"))
			p.write("new", "new 3")
		}, map[string]string{"app": "new 3", "app.bak": first}},
		"becomes what was put in the destination's place": {files("app", second),
			map[string]string{"app": "new 1", "app.bak": second}},
		"becomes that also when the source is renewed at the same time": {files("app", second, "new", "new 2"),
			map[string]string{"app": "new 2", "app.bak": second}},
		"is that of the first run after the destination was restored from it": {files("app", first),
			map[string]string{"app": "new 1", "app.bak": first}},
		"is not made of this program's own content when it was removed": {func(p place) {
			require.NoError(t, os.Remove(p.path("app.bak")))
			p.write("new", "new 2")
		}, map[string]string{"app": "new 2"}},
		"with a number is the one that follows another of unknown origin": {func(p place) {
			require.NoError(t, os.Remove(p.path("app.bak.state")))
			p.write("app", third)
			p.run(p.copying(Config{}, "new", "app"))
			assert.Equal(t, third, string(p.read("app.bak.1")))
			p.write("app", second)
		}, map[string]string{"app": "new 1", "app.bak": first, "app.bak.1": second}},
		"is kept when the state makes no sense": {files("app.bak.state", "gibberish\n", "app", second),
			map[string]string{"app": "new 1", "app.bak": first, "app.bak.1": second}},
		"is found next to the destination only": {
			files("elsewhere", "precious", "app.bak.state", "backup: app.bak/../elsewhere\nwritten: \n", "app", second),
			map[string]string{"app": "new 1", "elsewhere": "precious", "app.bak": first, "app.bak.1": second}},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := newPlace(t, "new", "new 1", "app", first)
			cfg := p.copying(Config{}, "new", "app")
			p.run(cfg)
			row.then(p)

			p.run(cfg)

			got := map[string]string{}
			for name, e := range p.listing() {
				if name != "new" && name != "changeit.pass" && filepath.Ext(name) != ".state" {
					got[name] = e.data
				}
			}
			assert.Equal(t, row.want, got)
			assert.False(t, p.run(cfg).Changed())
		})
	}
}

func TestRun_destinationChangedDuringTheRunIsLeftAlone(t *testing.T) {
	p := newPlace(t, "base.pem", pemOf(0), "other.pem", pemOf(1))
	cfg := p.merge("base.pem", "other.pem")

	_, err := newRun(cfg, func(op, path string) error {
		if full(files.OpWrite, "base.pem")(op, path) != nil {
			p.write("base.pem", pemOf(2))
		}
		return nil
	}).do(cfg, slog.New(slog.DiscardHandler))

	require.EqualError(t, err, `writing destination: another process changed "`+p.path("base.pem")+
		`" during the run: run again`)
	assert.Equal(t, 11, ExitCode(err))
	assert.Equal(t, pemOf(2), p.read("base.pem"))

	p.run(cfg)
	assert.Equal(t, map[string]int{"C": 2, "B": 1}, p.contents("base.pem"))
	assert.Equal(t, pemOf(2), p.read("base.pem.bak"))
}

func TestRun_failureAfterTheFirstReplacementSaysWhatIsDone(t *testing.T) {
	p := newPlace(t, "new.p12", "2", "new.pass", "2", "app.p12", "1", "app.pass", "1")
	cfg := p.copying(Config{}, "new.p12", "app.p12", "new.pass", "app.pass")

	result, err := newRun(cfg, full(files.OpRename, "app.pass")).do(cfg, slog.New(slog.DiscardHandler))

	require.Error(t, err)
	assert.Equal(t, []Replaced{{p.path("app.p12"), p.path("app.p12.bak")}}, result.Replaced)
	assert.Equal(t, []Replaced{{p.path("app.pass"), p.path("app.pass.bak")}}, p.run(cfg).Replaced)
}

// An init container and a sidecar may merge at the same moment. Neither fails, and the backup stays the first
// run's, through the next renewal too.
func TestRun_severalAtOnce_workOneAfterTheOther(t *testing.T) {
	for round := range 20 {
		p, cfg := newScene(t)
		original := p.read("base.jks")
		var runs sync.WaitGroup
		for range 4 {
			runs.Go(func() {
				_, err := Run(cfg, slog.New(slog.DiscardHandler))
				assert.NoError(t, err, round)
			})
		}
		runs.Wait()
		p.putAll("other.pem", pemOf(2), "key.p12", "newer")
		p.run(cfg)
		assert.Equal(t, original, p.read("base.jks.bak"), round)
		assert.Equal(t, "old", string(p.read("app.p12.bak")), round)
	}
}
