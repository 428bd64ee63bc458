package truststore

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestRun_secondRunChangesNothing(t *testing.T) {
	for _, kind := range kinds {
		name := "base." + kind
		p := newPlace(t, name, "="+kind+" a=0", "other.jks", "=jks a=1", "new", "new", "app", "old")
		cfg := p.copying(p.merge(name, "other.jks"), "new", "app", "new", "none/fresh")
		p.run(cfg)
		first := p.listing()

		// A later clock shows any file that is written again, even with the same content.
		cfg.Now = func() time.Time { return fixedTime.Add(time.Hour) }
		steps := 0
		count := func(string, string) error { steps++; return nil }
		result, err := newRun(cfg, count).do(cfg, noLog)

		require.NoError(t, err, kind)
		assert.Equal(t, Result{}, result, kind)
		assert.Zero(t, steps, kind) // so that it needs no right to write, either
		assert.Equal(t, first, p.listing(), kind)
	}
}

func TestRun_copies(t *testing.T) {
	p := newPlace(t, "base.pem", "=pem 0", "other.pem", "=pem 1", "app.pem", "old",
		"new.pass", "new", "app.pass", "old")
	cfg := p.copying(p.merge("base.pem", "other.pem"), "base.pem", "app.pem", "new.pass", "app.pass")

	result := p.run(cfg)

	assert.Equal(t, p.read("base.pem"), p.read("app.pem"), "what was merged before")
	assert.Equal(t, "A=0 B=1", p.contents("app.pem"))
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
				info := fixture.Must(os.Stat(p.path(name)))
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
	p := newPlace(t, "other.pem", "=pem 1")
	require.NoError(t, os.Mkdir(p.path("real"), 0o755))
	p.putAll("real/cacerts", "=jks a=0")
	require.NoError(t, os.Symlink("real/cacerts", p.path("cacerts")))

	p.run(p.merge("cacerts", "other.pem"))

	assert.Equal(t, "real/cacerts", fixture.Must(os.Readlink(p.path("cacerts"))))
	assert.Equal(t, "a=0 pem-trusted-certificate-0=1", p.contents("real/cacerts"))
	assert.FileExists(t, p.path("cacerts.bak"))
	assert.False(t, p.run(p.merge("cacerts", "other.pem")).Changed())
}

func TestRun_backup(t *testing.T) {
	for sentence, text := range golden.Read(t, "backups.txt") {
		t.Run(sentence, func(t *testing.T) {
			p := newPlace(t, "new", "new 1", "app", "of the application")
			cfg := p.copying(Config{}, "new", "app")
			p.run(cfg)
			commands, want := script(text)
			p.follow(&cfg, commands)

			p.run(cfg)

			got := ""
			for _, name := range p.names() {
				if name != "new" && name != "changeit.pass" && filepath.Ext(name) != ".state" {
					got += fmt.Sprintf("\n%s: %s", name, p.read(name))
				}
			}
			assert.Equal(t, "\n"+want, got)
			assert.False(t, p.run(cfg).Changed())
		})
	}
}

func TestRun_destinationChangedDuringTheRunIsLeftAlone(t *testing.T) {
	p := newPlace(t, "base.pem", "=pem 0", "other.pem", "=pem 1")
	cfg := p.merge("base.pem", "other.pem")

	_, err := newRun(cfg, func(op, path string) error {
		if full(files.OpWrite, "base.pem")(op, path) != nil {
			p.putAll("base.pem", "=pem 2")
		}
		return nil
	}).do(cfg, noLog)

	require.EqualError(t, err, `writing destination: another process changed "`+p.path("base.pem")+
		`" during the run: run again`)
	assert.Equal(t, 11, ExitCode(err))
	assert.Equal(t, made("pem 2"), p.read("base.pem"))

	p.run(cfg)
	assert.Equal(t, "B=1 C=2", p.contents("base.pem"))
	assert.Equal(t, made("pem 2"), p.read("base.pem.bak"))
}

func TestRun_failureAfterTheFirstReplacementSaysWhatIsDone(t *testing.T) {
	p := newPlace(t, "new.p12", "2", "new.pass", "2", "app.p12", "1", "app.pass", "1")
	cfg := p.copying(Config{}, "new.p12", "app.p12", "new.pass", "app.pass")

	result, err := newRun(cfg, full(files.OpRename, "app.pass")).do(cfg, noLog)

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
				_, err := Run(cfg, noLog)
				assert.NoError(t, err, round)
			})
		}
		runs.Wait()
		p.putAll("other.pem", "=pem 2", "key.p12", "newer")
		p.run(cfg)
		assert.Equal(t, original, p.read("base.jks.bak"), round)
		assert.Equal(t, "old", string(p.read("app.p12.bak")), round)
	}
}
