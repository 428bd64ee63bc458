package truststore

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func never(string) bool { return false }

// Each row is a look at a run over base.jks, into which other.pem is merged, and key.p12, which replaces app.p12,
// with one thing changed.
func TestCheck_tellsAllThatARunWouldFailFor(t *testing.T) {
	tests := []struct {
		name   string
		change func(p place, cfg *Config)
		step   func(op, path string) error
		later  func(path string) bool
		want   []string // DIR stands for the directory
	}{
		{"nothing is wrong", nil, nil, never, nil},
		{"nothing is to be done", func(p place, cfg *Config) { p.run(*cfg) }, nil, never, nil},
		{"everything is missing", func(p place, cfg *Config) {
			cfg.Truststores[0].Path, cfg.Truststores[1].Path = p.path("none"), p.path("none.pem")
			cfg.Keystores[0].Source = p.path("none.p12")
		}, nil, never, []string{
			`truststore "DIR/none" of TRUSTSTORES_PATHS does not exist, and its name ends in none of .jks, .p12, .pfx, .pem and .crt`,
			`truststore "DIR/none.pem" of TRUSTSTORES_PATHS does not exist`,
			`keystore "DIR/none.p12" of KEYSTORE_SOURCE_PATHS does not exist`,
		}},
		{"the only truststore is missing", func(p place, cfg *Config) {
			cfg.Truststores = cfg.Truststores[:1]
			cfg.Truststores[0].Path = p.path("none")
		}, nil, never, []string{`truststore "DIR/none" of TRUSTSTORES_PATHS does not exist, and its name ends in none of .jks, .p12, .pfx, .pem and .crt`}},
		{"what is missing comes later", func(p place, cfg *Config) {
			cfg.Truststores[1].Path, cfg.Keystores[0].Source = p.path("later.pem"), p.path("later.p12")
		}, nil, func(path string) bool { return strings.Contains(path, "/later") }, nil},
		{"a password file comes later", func(p place, cfg *Config) {
			cfg.Truststores[0].PasswordPath = p.path("later.pass")
		}, nil, func(path string) bool { return strings.Contains(path, "/later") }, nil},
		{"a password is wrong", func(p place, cfg *Config) { p.write("changeit.pass", []byte("secret")) }, nil, never,
			[]string{`reading truststore "DIR/base.jks": reading JKS store: wrong password, or the file was altered: its digest does not fit`}},
		{"a destination is named twice", func(p place, cfg *Config) {
			cfg.Keystores = append(cfg.Keystores, Copy{p.path("base.jks"), p.path("app.p12")})
		}, nil, never, []string{`file "DIR/app.p12" would be written twice, as "DIR/app.p12" and as "DIR/app.p12": want each destination once, and none of them first in TRUSTSTORES_PATHS`}},
		{"a backup is a directory", func(p place, cfg *Config) { require.NoError(t, os.Mkdir(p.path("base.jks.bak"), 0o755)) }, nil, never,
			[]string{`backing up "DIR/base.jks": "DIR/base.jks.bak" is no regular file (drwxr-xr-x)`}},
		{"a destination is below a file", func(p place, cfg *Config) { cfg.Keystores[0].Destination = p.path("base.jks/app.p12") }, nil, never,
			[]string{`resolving destination: resolving "DIR/base.jks/app.p12": not a directory`}},
		{"a destination's directories are to be made", func(p place, cfg *Config) { cfg.Keystores[0].Destination = p.path("a/b/app.p12") }, nil, never, nil},
		{"there is no room for the backups", nil, full("writing", ".bak"), never,
			[]string{`writing "DIR/app.p12.bak": no space left on device`, `writing "DIR/base.jks.bak": no space left on device`}},
		{"the destination cannot be replaced", nil, full("creating a file beside", "/base.jks"), never,
			[]string{`creating a file beside "DIR/base.jks": no space left on device`}},
		{"the destination cannot be replaced when there will be something to do", func(p place, cfg *Config) { p.run(*cfg) },
			full("creating a file beside", "/base.jks"), never, []string{`creating a file beside "DIR/base.jks": no space left on device`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			p.write("base.jks", jks(t, trusted(t, "a", 0)...))
			p.write("other.pem", pemOf(1))
			p.write("key.p12", p12(t, keyEntry("new")))
			p.write("app.p12", p12(t, keyEntry("old")))
			cfg := p.merge("base.jks", "other.pem")
			cfg.Keystores = p.copying("key.p12", "app.p12").Keystores
			if test.change != nil {
				test.change(p, &cfg)
			}
			before := p.listing()

			var got []string
			for _, err := range newRun(cfg, test.step).check(cfg, test.later) {
				got = append(got, strings.ReplaceAll(err.Error(), p.dir, "DIR"))
			}

			assert.Equal(t, test.want, got)
			after := p.listing()
			delete(before, "") // the directory, whose date changes
			delete(after, "")
			assert.Equal(t, before, after)
		})
	}
}

// What a killed run left is the next run's to remove, and a single truststore is nobody's destination.
func TestCheck_leavesAloneWhatItDoesNotNeed(t *testing.T) {
	p := newPlace(t)
	p.write("base.pem", pemOf(0))
	p.write(".base.pem"+temporaryMark+"1", nil)
	before := p.names()
	assert.Empty(t, Check(p.merge("base.pem"), never))
	cfg := p.merge("base.pem", "base.pem")
	assert.Empty(t, Check(cfg, never))
	assert.Equal(t, before, p.names())
}
