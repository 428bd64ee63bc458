package truststore

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRun_secondRunChangesNothing(t *testing.T) {
	for name, encode := range baseOf {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.write(name, encode(t, trusted(t, "a", 0)...))
			p.write("other.jks", jks(t, trusted(t, "a", 1)...))
			p.write("new.p12", []byte("new"))
			p.write("app.p12", []byte("old"))
			cfg := p.merge(name, "other.jks")
			cfg.Keystores = p.copying("new.p12", "app.p12", "new.p12", "none/fresh.p12").Keystores
			p.run(cfg)
			first := p.listing()

			// A later clock shows any file that is written again, even with the same content.
			cfg.Now = func() time.Time { return fixedTime.Add(time.Hour) }
			steps := 0
			result, err := newRun(cfg, func(string, string) error { steps++; return nil }).do(cfg, slog.New(slog.DiscardHandler))

			require.NoError(t, err)
			assert.Equal(t, Result{}, result)
			assert.Zero(t, steps)
			assert.Equal(t, first, p.listing())
		})
	}
}

func TestRun_nothingToDoNeedsNoRightToWrite(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", jks(t, trusted(t, "a", 0)...))
	p.write("other.pem", pemOf(0))
	require.NoError(t, os.Chmod(p.dir, 0o555))
	t.Cleanup(func() { _ = os.Chmod(p.dir, 0o755) })

	assert.False(t, p.run(p.merge("base.jks", "other.pem")).Changed())
	assert.Equal(t, []string{"base.jks", "changeit.pass", "other.pem"}, p.names())
}

func TestRun_copiesOverTheDestination(t *testing.T) {
	p := newPlace(t)
	p.write("new.p12", []byte("new store"))
	p.write("new.pass", []byte("new password"))
	p.write("app.p12", []byte("old store"))
	p.write("app.pass", []byte("old password"))

	result := p.run(p.copying("new.p12", "app.p12", "new.pass", "app.pass"))

	assert.Equal(t, []Replaced{{p.path("app.p12"), p.path("app.p12.bak")}, {p.path("app.pass"), p.path("app.pass.bak")}}, result.Replaced)
	assert.Equal(t, "new store", string(p.read("app.p12")))
	assert.Equal(t, "old store", string(p.read("app.p12.bak")))
	assert.Equal(t, "new password", string(p.read("app.pass")))
	assert.Equal(t, "old password", string(p.read("app.pass.bak")))
}

func TestRun_copiesWhatWasMergedBefore(t *testing.T) {
	p := newPlace(t)
	p.write("base.pem", pemOf(0))
	p.write("other.pem", pemOf(1))
	cfg := p.merge("base.pem", "other.pem")
	cfg.Keystores = p.copying("base.pem", "app.pem").Keystores

	p.run(cfg)

	assert.Equal(t, p.read("base.pem"), p.read("app.pem"))
	assert.Equal(t, map[string]int{"A": 0, "B": 1}, contents(t, p.read("app.pem")))
	assert.False(t, p.run(cfg).Changed())
}

func TestRun_newDestinationIsClosedToOthersAndHasNoBackup(t *testing.T) {
	p := newPlace(t)
	p.write("new.p12", []byte("new"))
	require.NoError(t, os.Chmod(p.path("new.p12"), 0o644))

	result := p.run(p.copying("new.p12", "not/yet/there/app.p12"))

	path := p.path("not/yet/there/app.p12")
	assert.Equal(t, []Replaced{{Path: path}}, result.Replaced)
	for _, file := range []string{path, path + ".bak.state"} {
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o640), info.Mode(), file)
	}
	assert.NoFileExists(t, path+".bak")
	info, err := os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o750, info.Mode())
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
			p := newPlace(t)
			p.write("new.p12", []byte("new"))
			p.write("app.p12", []byte("old"))
			uid, gid := os.Geteuid(), os.Getegid()
			if uid == 0 {
				uid, gid = 1234, 4321
				require.NoError(t, os.Chown(p.path("app.p12"), uid, gid))
			}
			require.NoError(t, os.Chmod(p.path("new.p12"), test.source))
			require.NoError(t, os.Chmod(p.path("app.p12"), test.destination))
			var log bytes.Buffer

			_, err := Run(p.copying("new.p12", "app.p12"), slog.New(slog.NewTextHandler(&log, nil)))

			require.NoError(t, err)
			for name, mode := range map[string]os.FileMode{"app.p12": test.want, "app.p12.bak": test.destination, "app.p12.bak.state": test.want} {
				info, err := os.Stat(p.path(name))
				require.NoError(t, err)
				assert.Equal(t, mode, info.Mode(), name)
				assert.Equal(t, uint32(uid), info.Sys().(*syscall.Stat_t).Uid, name)
				assert.Equal(t, uint32(gid), info.Sys().(*syscall.Stat_t).Gid, name)
			}
			if test.warning == "" {
				assert.NotContains(t, log.String(), "level=WARN")
			} else {
				assert.Contains(t, log.String(), test.warning)
			}
		})
	}
}

// A keystore in the place of a truststore is no fault, as it was none for the ONAP post-processor.
func TestRun_keystoreAsTruststore_isAWarning(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", jks(t, trusted(t, "a", 0)...))
	p.write("keystore.p12", p12(t, keyEntry("application")))
	var log bytes.Buffer

	result, err := Run(p.merge("base.jks", "keystore.p12"), slog.New(slog.NewTextHandler(&log, nil)))

	require.NoError(t, err)
	assert.False(t, result.Changed())
	assert.Contains(t, log.String(), "holds no trusted certificate, only private keys: is it a keystore?")

	p.run(p.merge("keystore.p12", "base.jks"))
	assert.Equal(t, map[string]int{"a": 0}, contents(t, p.read("keystore.p12")))
}

// One damaged certificate costs itself only.
func TestRun_damagedCertificate_isSkippedWithAWarning(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", jks(t, trusted(t, "a", 0)...))
	p.write("other.pem", append(append([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), pemOf(1)...), pemOf(2)[:200]...))
	var log bytes.Buffer

	_, err := Run(p.merge("base.jks", "other.pem"), slog.New(slog.NewTextHandler(&log, nil)))

	require.NoError(t, err)
	assert.Equal(t, map[string]int{"a": 0, "pem-trusted-certificate-0": 1}, contents(t, p.read("base.jks")))
	assert.Contains(t, log.String(), `at line 1 cannot be read`)
	assert.Contains(t, log.String(), `it has no END line: the file was cut short`)
}

func TestRun_linkStaysOneAndItsTargetIsReplaced(t *testing.T) {
	// The kubelet's volumes and Debian's cacerts are such links.
	p := newPlace(t)
	require.NoError(t, os.Mkdir(p.path("real"), 0o755))
	p.write("real/cacerts", jks(t, trusted(t, "a", 0)...))
	require.NoError(t, os.Symlink("real/cacerts", p.path("cacerts")))
	p.write("other.pem", pemOf(1))

	p.run(p.merge("cacerts", "other.pem"))

	target, err := os.Readlink(p.path("cacerts"))
	require.NoError(t, err)
	assert.Equal(t, "real/cacerts", target)
	assert.Len(t, contents(t, p.read("real/cacerts")), 2)
	assert.FileExists(t, p.path("cacerts.bak"))
	assert.False(t, p.run(p.merge("cacerts", "other.pem")).Changed())
}

// What a backup holds: the destination as somebody else left it last.
func TestRun_backup(t *testing.T) {
	const first, second = "of the application", "put there anew"
	tests := []struct {
		name string
		then func(p place) // after a first run that replaced "first" by "new 1"
		want map[string]string
	}{
		{"stays when the source is renewed", func(p place) {
			p.write("new", []byte("new 2"))
		}, map[string]string{"app": "new 2", "app.bak": first}},
		{"stays when the source is renewed twice", func(p place) {
			p.write("new", []byte("new 2"))
			p.run(p.copying("new", "app"))
			p.write("new", []byte("new 3"))
		}, map[string]string{"app": "new 3", "app.bak": first}},
		{"becomes what somebody put in the destination's place", func(p place) {
			p.write("app", []byte(second))
		}, map[string]string{"app": "new 1", "app.bak": second}},
		{"becomes that also when the source is renewed at the same time", func(p place) {
			p.write("app", []byte(second))
			p.write("new", []byte("new 2"))
		}, map[string]string{"app": "new 2", "app.bak": second}},
		{"is that of the first run after the destination was restored from it", func(p place) {
			p.write("app", []byte(first))
		}, map[string]string{"app": "new 1", "app.bak": first}},
		{"is not made of this program's own content when somebody removed it", func(p place) {
			require.NoError(t, os.Remove(p.path("app.bak")))
			p.write("new", []byte("new 2"))
		}, map[string]string{"app": "new 2", "app.bak": ""}},
		{"of unknown origin is kept, and the new one gets a number", func(p place) {
			require.NoError(t, os.Remove(p.path("app.bak.state")))
			p.write("app", []byte("merged by another program"))
			p.write("new", []byte("new 2"))
		}, map[string]string{"app": "new 2", "app.bak": first, "app.bak.1": "merged by another program"}},
		{"with a number is the one that follows from then on", func(p place) {
			require.NoError(t, os.Remove(p.path("app.bak.state")))
			p.write("app", []byte("merged by another program"))
			p.run(p.copying("new", "app"))
			p.write("app", []byte(second))
		}, map[string]string{"app": "new 1", "app.bak": first, "app.bak.1": second}},
		{"is kept when the state makes no sense", func(p place) {
			p.write("app.bak.state", []byte("gibberish\n"))
			p.write("app", []byte(second))
		}, map[string]string{"app": "new 1", "app.bak": first, "app.bak.1": second}},
		{"is found beside the destination only", func(p place) {
			p.write("elsewhere", []byte("precious"))
			p.write("app.bak.state", []byte("backup: app.bak/../elsewhere\nwritten: \n"))
			p.write("app", []byte(second))
		}, map[string]string{"app": "new 1", "elsewhere": "precious", "app.bak": first, "app.bak.1": second}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			p.write("new", []byte("new 1"))
			p.write("app", []byte(first))
			p.run(p.copying("new", "app"))
			test.then(p)

			p.run(p.copying("new", "app"))

			got := map[string]string{}
			for name := range test.want {
				data, err := os.ReadFile(p.path(name))
				if !os.IsNotExist(err) {
					require.NoError(t, err)
				}
				got[name] = string(data)
			}
			assert.Equal(t, test.want, got)
			assert.False(t, p.run(p.copying("new", "app")).Changed())
		})
	}
}

func TestRun_truststoreFollowsRenewedSourcesAndItsBackupStays(t *testing.T) {
	p := newPlace(t)
	original := jks(t, trusted(t, "mine", 0)...)
	p.write("base.jks", original)
	for n := 1; n < 5; n++ {
		p.write("fetched.p12", p12(t, trusted(t, "trusted-certificate-1", n)...))
		assert.True(t, p.run(p.merge("base.jks", "fetched.p12")).Changed())
	}
	assert.Equal(t, map[string]int{"mine": 0, "trusted-certificate-1": 1, "trusted-certificate-1-2": 2,
		"trusted-certificate-1-3": 3, "trusted-certificate-1-4": 4}, contents(t, p.read("base.jks")))
	assert.Equal(t, original, p.read("base.jks.bak"))
}

func TestRun_destinationChangedMeanwhileIsLeftAlone(t *testing.T) {
	p := newPlace(t)
	p.write("base.pem", pemOf(0))
	p.write("other.pem", pemOf(1))
	cfg := p.merge("base.pem", "other.pem")

	_, err := newRun(cfg, func(op, path string) error {
		if op == "writing" && strings.HasSuffix(path, "/base.pem") {
			p.write("base.pem", pemOf(2))
		}
		return nil
	}).do(cfg, slog.New(slog.DiscardHandler))

	require.EqualError(t, err, `writing destination: "`+p.path("base.pem")+`" was changed by somebody else meanwhile, run again`)
	assert.Equal(t, 11, ExitCode(err))
	assert.Equal(t, pemOf(2), p.read("base.pem"))

	p.run(cfg)
	assert.Equal(t, map[string]int{"C": 2, "B": 1}, contents(t, p.read("base.pem")))
	assert.Equal(t, pemOf(2), p.read("base.pem.bak"))
}

func TestRun_failureAfterTheFirstReplacementTellsWhatIsDone(t *testing.T) {
	p := newPlace(t)
	for name, content := range map[string]string{"new.p12": "2", "new.pass": "2", "app.p12": "1", "app.pass": "1"} {
		p.write(name, []byte(content))
	}
	cfg := p.copying("new.p12", "app.p12", "new.pass", "app.pass")

	result, err := newRun(cfg, full("replacing", "/app.pass")).do(cfg, slog.New(slog.DiscardHandler))

	require.Error(t, err)
	assert.Equal(t, []Replaced{{p.path("app.p12"), p.path("app.p12.bak")}}, result.Replaced)
	assert.Equal(t, []Replaced{{p.path("app.pass"), p.path("app.pass.bak")}}, p.run(cfg).Replaced)
}

func BenchmarkRun_nothingToDo(b *testing.B) {
	p := newPlace(b)
	cacerts, err := os.ReadFile("/etc/ssl/certs/java/cacerts")
	if err != nil {
		b.Skip("no cacerts of a JDK on this machine")
	}
	p.write("base.jks", cacerts)
	p.write("fetched.p12", p12(b, trusted(b, "trusted-certificate-1", 0)...))
	cfg := p.merge("base.jks", "fetched.p12")
	p.run(cfg)
	for b.Loop() {
		if p.run(cfg).Changed() {
			b.Fatal("changed")
		}
	}
}
