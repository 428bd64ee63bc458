package truststore

import (
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// full is a disk on which the operation fails, for paths with the ending.
func full(op, ending string) func(string, string) error {
	return func(o, path string) error {
		if o == op && strings.HasSuffix(path, ending) {
			return syscall.ENOSPC
		}
		return nil
	}
}

// Each row is a run over base.jks, into which other.pem is merged, and key.p12, which replaces app.p12,
// with one thing changed. (Codes 1 and 2 come from Load, too: see TestLoad_faults.)
func TestRun_exitCodesAndTexts(t *testing.T) {
	cutShort := pemOf(0)[:200]
	tests := []struct {
		name   string
		change func(p place, cfg *Config)
		step   func(op, path string) error
		code   int
		want   string // DIR stands for the directory
	}{
		{"a destination named twice", func(p place, cfg *Config) {
			cfg.Keystores = append(cfg.Keystores, Copy{p.path("base.jks"), p.path("app.p12")})
		}, nil, 2, `file "DIR/app.p12" would be written twice, as "DIR/app.p12" and as "DIR/app.p12": want each destination once, and none of them first in TRUSTSTORES_PATHS`},
		{"a keystore over the merged truststore, by way of a link", func(p place, cfg *Config) {
			require.NoError(t, os.Symlink("base.jks", p.path("link")))
			cfg.Keystores[0].Destination = p.path("link")
		}, nil, 2, `file "DIR/base.jks" would be written twice, as "DIR/base.jks" and as "DIR/link": want each destination once, and none of them first in TRUSTSTORES_PATHS`},
		{"a truststore that does not exist", func(p place, cfg *Config) {
			cfg.Truststores[1].Path = p.path("none.pem")
		}, nil, 3, `truststore "DIR/none.pem" of TRUSTSTORES_PATHS does not exist`},
		{"a password file that does not exist", func(p place, cfg *Config) {
			cfg.Truststores[0].PasswordPath = p.path("none.pass")
		}, nil, 4, `reading the password of truststore "DIR/base.jks": opening "DIR/none.pass": no such file or directory`},
		{"a password file that is a directory", func(p place, cfg *Config) {
			cfg.Truststores[0].PasswordPath = p.dir
		}, nil, 4, `reading the password of truststore "DIR/base.jks": "DIR" is no regular file (drwxr-xr-x)`},
		{"no password file for a JKS store", func(p place, cfg *Config) {
			data, err := keystore.EncodeJKS(trusted(t, "a", 0), "swordfish", fixedTime)
			require.NoError(t, err)
			p.write("base.jks", data)
			cfg.Truststores[0].PasswordPath = ""
		}, nil, 4, `truststore "DIR/base.jks" is a JKS store with a password other than that of a JDK's cacerts, want the file that holds it in TRUSTSTORES_PASSWORDS_PATHS`},
		{"no password file for a PKCS#12 store", func(p place, cfg *Config) {
			data, err := keystore.EncodePKCS12(trusted(t, "a", 0), "swordfish", keystore.ProfileModern)
			require.NoError(t, err)
			p.write("base.jks", data)
			cfg.Truststores[0].PasswordPath = ""
		}, nil, 4, `truststore "DIR/base.jks" is a PKCS12 store with a password other than that of a JDK's cacerts, want the file that holds it in TRUSTSTORES_PASSWORDS_PATHS`},
		{"no room for the backup of the truststore", nil, full("writing", "/base.jks.bak"), 5,
			`backing up "DIR/base.jks": writing "DIR/base.jks.bak": no space left on device`},
		{"no room for the backup of the keystore", nil, full("creating a file beside", "/app.p12.bak"), 5,
			`backing up "DIR/app.p12": creating a file beside "DIR/app.p12.bak": no space left on device`},
		{"no room for the state of a backup", nil, full("syncing", "/app.p12.bak.state"), 5,
			`backing up "DIR/app.p12": syncing "DIR/app.p12.bak.state": no space left on device`},
		{"a backup that is a directory", func(p place, cfg *Config) {
			require.NoError(t, os.Mkdir(p.path("base.jks.bak"), 0o755))
		}, nil, 5, `backing up "DIR/base.jks": "DIR/base.jks.bak" is no regular file (drwxr-xr-x)`},
		{"a store of no known format and a name that says none", func(p place, cfg *Config) {
			p.write("cacerts", []byte("<html>"))
			cfg.Truststores[1].Path = p.path("cacerts")
		}, nil, 6, `reading truststore "DIR/cacerts": store looks like HTML or XML, want JKS, PKCS#12 or PEM`},
		{"a .jks of no known format", func(p place, cfg *Config) { p.write("base.jks", nil) }, nil, 7,
			`reading truststore "DIR/base.jks": store is empty, want JKS, PKCS#12 or PEM`},
		{"a truststore that is a directory", func(p place, cfg *Config) { cfg.Truststores[0].Path = p.dir }, nil, 7,
			`reading truststore: "DIR" is no regular file (drwxr-xr-x)`},
		{"a truststore that is too large", func(p place, cfg *Config) {
			require.NoError(t, os.Truncate(p.path("other.pem"), keystore.MaxSize+1))
		}, nil, 7, `reading truststore: "DIR/other.pem" has more than 8388608 bytes, the most that a store may have`},
		{"a wrong password", func(p place, cfg *Config) { p.write("changeit.pass", []byte("secret")) }, nil, 7,
			`reading truststore "DIR/base.jks": reading JKS store: wrong password, or the file was altered: its digest does not fit`},
		{"a wrong password for a store with the name of another format", func(p place, cfg *Config) {
			p.write("base.jks", p12(t, trusted(t, "a", 0)...))
			p.write("changeit.pass", []byte("secret"))
		}, nil, 7, `reading truststore "DIR/base.jks" (named as if it were JKS, but its content is PKCS12): reading PKCS12 store: wrong password, or the file was altered: its MAC does not fit`},
		{"a damaged PEM store", func(p place, cfg *Config) { p.write("other.pem", cutShort) }, nil, 7,
			`reading truststore "DIR/other.pem": reading PEM store: the PEM block "CERTIFICATE" at line 1 cannot be read: it has no END line: the file was cut short, or lines are missing`},
		{"a PEM store without certificates", func(p place, cfg *Config) { p.write("other.pem", []byte("\n")) }, nil, 9,
			`reading truststore "DIR/other.pem": store is blank, want JKS, PKCS#12 or PEM`},
		{"a JKS store without entries", func(p place, cfg *Config) {
			p.write("base.jks", emptyJKS(t))
		}, nil, 9, `truststore "DIR/base.jks" is empty, want at least one certificate`},
		{"a PKCS#12 store without entries", func(p place, cfg *Config) {
			p.write("base.jks", passwordless(t))
		}, nil, 9, `truststore "DIR/base.jks" is empty, want at least one certificate`},
		{"a truststore that does not exist, with the name of no format", func(p place, cfg *Config) { cfg.Truststores[1].Path = p.path("none") }, nil, 1,
			`truststore "DIR/none" of TRUSTSTORES_PATHS does not exist, and its name ends in none of .jks, .p12, .pfx, .pem and .crt`},
		{"no room for the truststore", nil, full("writing", "/base.jks"), 11,
			`writing destination: writing "DIR/base.jks": no space left on device`},
		{"a truststore that cannot be replaced", nil, full("replacing", "/base.jks"), 11,
			`writing destination: replacing "DIR/base.jks": no space left on device`},
		{"no room for the keystore", nil, full("syncing", "/app.p12"), 12,
			`writing destination: syncing "DIR/app.p12": no space left on device`},
		{"a keystore that is a directory", func(p place, cfg *Config) { cfg.Keystores[0].Source = p.dir }, nil, 12,
			`reading keystore: "DIR" is no regular file (drwxr-xr-x)`},
		{"a keystore to replace that is a directory", func(p place, cfg *Config) { cfg.Keystores[0].Destination = p.dir }, nil, 12,
			`reading destination: "DIR" is no regular file (drwxr-xr-x)`},
		{"a keystore in a directory that cannot be made", func(p place, cfg *Config) {
			cfg.Keystores[0].Destination = p.path("other.pem/app.p12")
		}, nil, 12, `resolving destination: resolving "DIR/other.pem/app.p12": not a directory`},
		{"a keystore that does not exist", func(p place, cfg *Config) { cfg.Keystores[0].Source = p.path("none.p12") }, nil, 13,
			`keystore "DIR/none.p12" of KEYSTORE_SOURCE_PATHS does not exist`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			p.write("base.jks", jks(t, trusted(t, "a", 0)...))
			p.write("other.pem", pemOf(1))
			p.write("key.p12", []byte("new"))
			p.write("app.p12", []byte("old"))
			require.NoError(t, os.Chmod(p.dir, 0o755))
			cfg := p.merge("base.jks", "other.pem")
			cfg.Keystores = p.copying("key.p12", "app.p12").Keystores
			if test.change != nil {
				test.change(p, &cfg)
			}
			before := p.listing()

			result, err := newRun(cfg, test.step).do(cfg, slog.New(slog.DiscardHandler))

			require.Error(t, err)
			assert.Equal(t, test.want, strings.ReplaceAll(err.Error(), p.dir, "DIR"))
			assert.Equal(t, test.code, ExitCode(err))
			assert.False(t, result.Changed())
			for name, was := range before {
				if !strings.HasSuffix(name, "pass") && name != "" {
					assert.Equal(t, was, p.listing()[name], name)
				}
			}
			for name := range p.listing() {
				assert.NotContains(t, name, temporaryMark)
			}
		})
	}
}

func emptyJKS(t testing.TB) []byte {
	t.Helper()
	header := []byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 0}
	data, err := keystore.Append(append(header, make([]byte, 20)...), password, nil, nil, fixedTime)
	require.NoError(t, err)
	return data
}
