package output

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

func TestOpen_whatIsInTheWayOfTheDirectory(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	writeFile(t, dir, "file", "")
	require.NoError(t, os.Symlink("nowhere", link))
	before := listing(t, dir)
	isFile := `creating directory "` + file + `": not a directory (it is a file: remove it or give another path)`
	for path, want := range map[string]string{
		file: isFile, file + "/certs": isFile, file + "/a/b/c": isFile,
		link: `opening "` + link + `": no such file or directory (it is a link to a directory that does not exist)`,
	} {
		_, err := Open(Config{Dir: path, Types: []string{TypePEM}})
		require.ErrorAs(t, err, new(*FileError))
		require.EqualError(t, err, want)
	}
	require.Equal(t, before, listing(t, dir))
}

func TestOpen_unusableConfiguration(t *testing.T) {
	const mode = "want permission bits with the owner's right to read"
	names := strings.Join(FormatNames(), ", ")
	for want, line := range map[string]string{
		`output directory is "certs", want an absolute path`:     "set Dir certs",
		"no output type is given, want at least one of " + names: "set Types",
		`output type is "p12", want one of ` + names:             "set Types PEM p12",
		`output layout is "flat", want symlink or inplace`:       "set Layout flat",
		`PKCS#12 profile is "old", want modern or legacy`:        "set P12Profile old",
		"file mode is 040, " + mode:                              "set FileMode 040",
		"file mode is 0104600, " + mode:                          "set FileMode 0104600",
	} {
		p := newPlayer(t, newConfig(t, LayoutSymlink, TypePEM))
		p.play(line)
		_, err := Open(p.cfg)
		assert.EqualError(t, err, want)
		_, err = Read(p.cfg)
		assert.EqualError(t, err, want)
	}
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	cfg.Group = "no-such-group"
	_, err := Open(cfg)
	require.ErrorAs(t, err, new(*FileError))
	require.EqualError(t, err, `setting the group of "`+cfg.Dir+
		`": finding group "no-such-group": no group of that name in /etc/group, give its number`)
}

// A process that may write to the volume must not be able to make a privileged one write elsewhere.
func TestVolume_Publish_neverLeavesTheVolume(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, outside := newConfig(t, layout, TypePEM), t.TempDir()
		v := openWith(t, cfg, func(op, path string) error {
			if op == files.OpCreate && filepath.Base(path) == "key.pem" {
				stage := filepath.Dir(path)
				return errors.Join(os.RemoveAll(stage), os.Symlink(outside, stage))
			}
			return nil
		})
		_, err := v.Publish(newBundle())
		require.ErrorContains(t, err, "path escapes from parent")
		require.Empty(t, listing(t, outside))
	})
}

// The list in ..commit is read by the process that starts next.
func FuzzOpen_listOfACommit(f *testing.F) {
	f.Add("key.pem\nkeystore.pem")
	f.Add("")
	f.Add("../outside\n/etc/passwd\n..data\n.\n\x00\nkey.pem/..")
	f.Fuzz(func(t *testing.T, list string) {
		top := t.TempDir()
		cfg := Config{Dir: filepath.Join(top, "certs"), Types: []string{TypePEM}}
		require.NoError(t, os.MkdirAll(filepath.Join(cfg.Dir, commitDir), 0o700))
		for path, data := range map[string]string{
			"outside": "o", "certs/" + commitSet: list, "certs/..commit/key.pem": "new", "certs/key.pem": "old",
		} {
			writeFile(t, top, path, data)
		}
		mustOpen(t, cfg)
		require.Len(t, listing(t, top), 2)
		require.Equal(t, "o", readFile(top, "outside"))
		names := listing(t, cfg.Dir)
		if strings.Contains("\n"+list+"\n", "\nkey.pem\n") {
			require.Equal(t, map[string]string{"key.pem": "-rw-------"}, names)
			require.Equal(t, "new", readFile(cfg.Dir, "key.pem"))
		} else {
			require.Empty(t, names)
		}
	})
}

func TestNewPassword_isDrawnUniformlyFromTheAlphabet(t *testing.T) {
	const passwords = 20000
	counts := map[rune]int{}
	for range passwords {
		p := newPassword()
		require.Len(t, p, 24)
		for _, r := range p {
			counts[r]++
		}
	}
	require.Len(t, counts, 65)
	// Pearson's test, 64 degrees of freedom: a fair draw exceeds 130 once in 3 million runs; taking
	// remainders of bytes instead of rejecting would give more than 1000.
	expected := float64(passwords*24) / 65
	chi := 0.0
	for r, n := range counts {
		require.True(t, strings.ContainsRune(passwordAlphabet, r))
		chi += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	require.Less(t, chi, 130.0)
}

func TestVolume_Publish_unusablePasswordFile(t *testing.T) {
	notPrintable := ", want printable ASCII on one line with no line break at its end"
	for data, reason := range map[string]string{
		"":                            "has 0 bytes, want a password of 6 to 1024",
		"s3cr":                        "has 4 bytes, want a password of 6 to 1024",
		"s3cr3t-value\n":              "has the byte 0x0a" + notPrintable,
		"s3cr3t-välue":                "has the byte 0xc3" + notPrintable,
		strings.Repeat("s3cr3t", 200): "has 1200 bytes, want a password of 6 to 1024",
	} {
		cfg, b := newConfig(t, LayoutInplace, TypeJKS), newBundle()
		var log bytes.Buffer
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		require.NoError(t, os.Mkdir(cfg.Dir, 0o755))
		writeFile(t, cfg.Dir, keystorePass, data)
		mustPublish(t, mustOpen(t, cfg), b)
		assert.Regexp(t, `^[A-Za-z0-9_$#]{24}$`, readFile(cfg.Dir, keystorePass))
		assert.Contains(t, log.String(), `level=WARN msg="the password file is unusable, making a new password" path=`+
			cfg.Dir+`/keystore.pass error="`+reason+`"`)
		assert.NotContains(t, log.String(), "s3cr")
		requireCurrent(t, cfg, b)
	}
}
