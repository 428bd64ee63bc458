package truststore

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/golden"
)

func later(path string) bool { return strings.Contains(path, "/later") }

// TestRunAndCheck_faults changes one thing of newScene. Check has to find what a run fails for, and neither may change
// anything. testdata/faults.txt has what they say. (Codes 1 and 2 come from Load, too: see TestLoad.)
func TestRunAndCheck_faults(t *testing.T) {
	type edit = func(p place, c *Config)
	base := func(content func() []byte) edit {
		return func(p place, _ *Config) { p.write("base.jks", content()) }
	}
	other := func(name string, content any) edit {
		return func(p place, c *Config) {
			if c.Truststores[1].Path = p.path(name); content != nil {
				p.write(name, content)
			}
		}
	}
	swordfish := func(encode func() ([]byte, error)) edit {
		return func(p place, c *Config) {
			p.write("base.jks", must(encode()))
			c.Truststores[0].PasswordPath = ""
		}
	}
	source := func(name string) edit { return func(p place, c *Config) { c.Keystores[0].Source = p.path(name) } }
	destination := func(name string) edit {
		return func(p place, c *Config) { c.Keystores[0].Destination = p.path(name) }
	}
	done := func(p place, c *Config) { p.run(*c) }
	want := golden.Read(t, "faults.txt")
	for _, row := range []struct {
		sentence string
		change   edit
		step     files.StepFunc
	}{
		{"nothing is wrong", nil, nil},
		{"nothing is to be done", done, nil},
		{"a destination's directories are to be made", destination("a/b/app.p12"), nil},
		{"a destination named twice", func(p place, c *Config) { *c = p.copying(*c, "base.jks", "app.p12") }, nil},
		{"a keystore over the merged truststore, by way of a link", func(p place, c *Config) {
			require.NoError(t, os.Symlink("base.jks", p.path("link")))
			destination("link")(p, c)
		}, nil},
		{"everything is missing", func(p place, c *Config) {
			other("none.pem", nil)(p, c)
			source("none.p12")(p, c)
			c.Truststores[0].Path = p.path("none")
		}, nil},
		{"the only truststore is missing", func(p place, c *Config) {
			c.Truststores, c.Truststores[0].Path = c.Truststores[:1], p.path("none")
		}, nil},
		{"a truststore that does not exist", other("none.pem", nil), nil},
		{"a truststore that comes later", other("later.pem", nil), nil},
		{"a keystore that comes later", source("later.p12"), nil},
		{"a password file that comes later", func(p place, c *Config) {
			c.Truststores[0].PasswordPath = p.path("later.pass")
		}, nil},
		{"a password file that does not exist", func(p place, c *Config) {
			c.Truststores[0].PasswordPath = p.path("none.pass")
		}, nil},
		{"a password file that is a directory",
			func(p place, c *Config) { c.Truststores[0].PasswordPath = p.dir }, nil},
		{"no password file for a JKS store", swordfish(func() ([]byte, error) {
			return keystore.EncodeJKS(trusted("a", 0), "swordfish", fixedTime)
		}), nil},
		{"no password file for a PKCS#12 store", swordfish(func() ([]byte, error) {
			return keystore.EncodePKCS12(trusted("a", 0), "swordfish", keystore.ProfileModern)
		}), nil},
		{"no room for the backup of the truststore", nil, full(files.OpWrite, "base.jks.bak")},
		{"no room for the backup of the keystore", nil, full(files.OpCreate, "app.p12.bak")},
		{"no room for the state of a backup", nil, full(files.OpSync, "app.p12.bak.state")},
		{"a backup that is a directory", func(p place, _ *Config) {
			require.NoError(t, os.Mkdir(p.path("base.jks.bak"), 0o755))
		}, nil},
		{"a store of an unknown format and name", other("cacerts", "<html>"), nil},
		{"a .jks of an unknown format", base(func() []byte { return nil }), nil},
		{"a truststore that is a directory", func(p place, c *Config) { c.Truststores[0].Path = p.dir }, nil},
		{"a truststore that is too large", func(p place, _ *Config) {
			require.NoError(t, os.Truncate(p.path("other.pem"), keystore.MaxSize+1))
		}, nil},
		{"a wrong password", func(p place, _ *Config) { p.write("changeit.pass", "secret") }, nil},
		{"a wrong password for a store named as another format", func(p place, _ *Config) {
			p.write("base.jks", p12(trusted("a", 0)...))
			p.write("changeit.pass", "secret")
		}, nil},
		{"a damaged PEM store", other("other.pem", pemOf(0)[:200]), nil},
		{"a PEM store without certificates", other("other.pem", "\n"), nil},
		{"a JKS store without entries", base(func() []byte { return emptyJKS(2) }), nil},
		{"a PKCS#12 store without entries", base(func() []byte { return passwordless() }), nil},
		{"a truststore that does not exist, without an extension", other("none", nil), nil},
		{"no room for the truststore", nil, full(files.OpWrite, "base.jks")},
		{"a truststore that cannot be replaced", nil, full(files.OpRename, "base.jks")},
		{"no room next to a destination when there is nothing to do", done, full(files.OpCreate, "base.jks")},
		{"no room for the keystore", nil, full(files.OpSync, "app.p12")},
		{"a keystore that is a directory", func(p place, c *Config) { c.Keystores[0].Source = p.dir }, nil},
		{"a keystore to replace that is a directory",
			func(p place, c *Config) { c.Keystores[0].Destination = p.dir }, nil},
		{"a keystore in a directory that cannot be made", destination("other.pem/app.p12"), nil},
		{"a keystore that does not exist", source("none.p12"), nil},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			p, cfg := newScene(t)
			require.NoError(t, os.Chmod(p.dir, 0o755))
			require.Contains(t, want, row.sentence)
			if row.change != nil {
				row.change(p, &cfg)
			}
			before := p.listing()
			var said []string
			for _, err := range newRun(cfg, row.step).check(cfg, later) {
				said = append(said, "check: "+err.Error())
			}
			assert.Equal(t, before, p.listing(), "Check has changed something")

			result, err := newRun(cfg, row.step).do(cfg, slog.New(slog.DiscardHandler))

			if err != nil {
				said = append(said, fmt.Sprintf("exit %d: %v", ExitCode(err), err))
				assert.False(t, result.Changed())
				for name, was := range before {
					assert.Equal(t, was, p.listing()[name], name)
				}
			}
			for name := range p.listing() {
				assert.NotContains(t, name, temporaryMark)
			}
			assert.Equal(t, want[row.sentence], strings.ReplaceAll(strings.Join(said, "\n"), p.dir, "DIR"))
		})
	}
}

// Check leaves to the next run what a killed one left, and a single truststore is not a destination.
func TestCheck_leavesAloneWhatItDoesNotNeed(t *testing.T) {
	p := newPlace(t, "base.pem", pemOf(0), ".base.pem"+temporaryMark+"1", "")
	before := p.names()
	for _, stores := range [][]string{{"base.pem"}, {"base.pem", "base.pem"}} {
		assert.Empty(t, Check(p.merge(stores...), later))
		assert.Equal(t, before, p.names())
	}
}

func TestRun_mountedFile_isRefusedWithAHint(t *testing.T) {
	p, cfg := newScene(t)
	if err := syscall.Mount(p.path("base.jks"), p.path("base.jks"), "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("mounting needs root in this namespace: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(p.path("base.jks"), 0)) })

	_, err := newRun(cfg, nil).do(cfg, nil)

	require.EqualError(t, err, `writing destination: "`+p.path("base.jks")+`" is mounted by itself, as with a subPath `+
		`or a volume for one file, and cannot be replaced: mount the directory that it is in`)
	assert.Equal(t, 11, ExitCode(err))
	assert.NoFileExists(t, p.path("base.jks.bak"))
	assert.Equal(t, []error{err}, Check(cfg, later))
}
