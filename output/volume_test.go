package output

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// The files of each format, in the order in which they are replaced, with their modes.
var expectedFiles = map[string][]string{
	TypeP12: {"keystore.pass -rw-r-----", "truststore.pass -rw-r-----", "truststore.p12 -rw-r--r--",
		"keystore.p12 -rw-r-----"},
	TypeJKS: {"keystore.pass -rw-r-----", "truststore.pass -rw-r-----", "truststore.jks -rw-r--r--",
		"keystore.jks -rw-r-----"},
	TypePEM: {"truststore.pem -rw-r--r--", "keystore-combined.pem -rw-r-----", "key.pem -rw-r-----",
		"keystore.pem -rw-r--r--"},
	"all": {"keystore.pass -rw-r-----", "truststore.pass -rw-r-----",
		"truststore.p12 -rw-r--r--", "truststore.jks -rw-r--r--", "truststore.pem -rw-r--r--",
		"keystore.p12 -rw-r-----", "keystore.jks -rw-r-----",
		"keystore-combined.pem -rw-r-----", "key.pem -rw-r-----", "keystore.pem -rw-r--r--"},
}

func TestVolume_Publish_writesTheFilesOfEachFormat(t *testing.T) {
	for name, want := range expectedFiles {
		types := []string{name}
		if name == "all" {
			types = FormatNames()
		}
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, b := newConfig(t, layout, types...), newBundle()
			v := mustOpen(t, cfg)
			_, err := v.Current()
			require.ErrorIs(t, err, ErrEmpty)
			p := mustPublish(t, v, b)
			assert.True(t, p.Changed)
			var has []string
			for _, path := range p.Files {
				has = append(has, filepath.Base(path)+" "+stat(path).Mode().String())
			}
			assert.Equal(t, want, has)
			requireCurrent(t, cfg, b)
			asTheJavaClient := cfg
			asTheJavaClient.KeystoreAlias, asTheJavaClient.TruststoreAliasPrefix = "certificate", "trusted-certificate-"
			requireCurrent(t, asTheJavaClient, b)

			before := listing(t, cfg.Dir)
			for _, again := range []*Volume{v, mustOpen(t, cfg)} {
				again.step = func(op, path string) error {
					t.Errorf("%s %s", op, path)
					return nil
				}
				p := mustPublish(t, again, b)
				assert.False(t, p.Changed)
				assert.Len(t, p.Files, len(want))
			}
			require.Equal(t, before, listing(t, cfg.Dir), "an unchanged set is left alone")
		})
	}
	assert.Len(t, expectedFiles, 1+len(Formats()), "each format has its row")
}

func TestVolume_Publish_symlinkLooksLikeAKubeletsVolume(t *testing.T) {
	cfg, v, _ := published(t, LayoutSymlink, TypePEM)
	first := current(v)
	mustPublish(t, v, newBundle())
	second := current(v)
	want := map[string]string{dataLink: "-> " + second, first: "drwxr-x---", second: "drwxr-x---"}
	for _, f := range filesOf(cfg.Types) {
		want[f.Name] = "-> ..data/" + f.Name
	}
	require.Regexp(t, `^\.\.2026_03_01_12_00_\d\d\.000$`, second)
	require.Equal(t, want, listing(t, cfg.Dir), "the generation before stays for its readers")
}

func TestVolume_Current_manyTrustedCertificatesKeepTheirOrder(t *testing.T) {
	for _, format := range FormatNames() {
		cfg, b := newConfig(t, LayoutSymlink, format), newBundle()
		for range 11 {
			b.Trusted = append(b.Trusted, newCA().Root)
		}
		mustPublish(t, mustOpen(t, cfg), b)
		requireCurrent(t, cfg, b)
	}
}

func TestRead_changesNothing(t *testing.T) {
	missing := newConfig(t, LayoutInplace, TypePEM)
	_, err := Read(missing)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoDirExists(t, missing.Dir)

	cfg, v, _ := published(t, LayoutInplace, TypePEM)
	v.step = func(op, path string) error {
		if op == files.OpRename && filepath.Base(path) == "key.pem" {
			panic(kill{})
		}
		return nil
	}
	require.True(t, wasKilled(func() { _, _ = v.Publish(newBundle()) }))
	before := listing(t, cfg.Dir)
	_, err = Read(cfg)
	require.EqualError(t, err, `"`+cfg.Dir+
		`/..commit" holds a publication that was interrupted, the next start completes it`)
	require.Equal(t, before, listing(t, cfg.Dir))

	cfg.NotePending = true
	require.True(t, mustOpen(t, cfg).Pending(), "what this process completes, its application has to be notified of")
}

func TestVolume_Publish_refusesWhatNoReaderCouldUse(t *testing.T) {
	b, other := newBundle(), newBundle()
	key, chain, trusted := b.Key, b.Chain, b.Trusted
	for want, bundle := range map[string]Bundle{
		"has no private key or no certificate, want both ":                {nil, chain, trusted, nil},
		"has no private key or no certificate, want both":                 {key, nil, trusted, nil},
		"the certificate holds another public key than the private key's": {key, other.Chain, trusted, nil},
		"has no trusted certificate, want at least one":                   {key, chain, nil, nil},
		"has a note of 65537 bytes, want at most 65536": {key, chain, trusted,
			make([]byte, NoteLimit+1)},
		"x509: unknown key type while marshaling PKCS#8: output.opaque": {opaque{key}, chain, trusted, nil},
	} {
		cfg := newConfig(t, LayoutSymlink, TypeP12)
		_, err := mustOpen(t, cfg).Publish(bundle)
		encoding, isEncoding := errors.AsType[*EncodeError](err)
		require.True(t, isEncoding)
		assert.Equal(t, "encoding keystore.p12: "+strings.TrimSpace(want), err.Error())
		assert.Equal(t, strings.Contains(want, "opaque"), encoding.Key, want)
		assert.Empty(t, listing(t, cfg.Dir))
	}
}

// A set is worth as much as its files are, whatever happened to the note.
func TestVolume_note_thatCannotBeOne_leavesTheSetAsItIs(t *testing.T) {
	for name, line := range map[string]string{"missing": "remove NOTE", "too large": "truncate NOTE 65537",
		"a link": "link NOTE /etc/passwd", "a directory": "mkdir NOTE"} {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, v, b := published(t, layout, TypePEM)
			if name[:2] == "a " {
				require.NoError(t, os.Remove(notePath(cfg)))
			}
			newPlayer(t, cfg).play(line)
			has, err := mustOpen(t, cfg).Current()
			require.NoError(t, err, name)
			require.Empty(t, has.Note)
			has.Note = b.Note
			require.True(t, has.equal(b))
			require.Len(t, mustRestore(t, v).Differences, 1)
			requireCurrent(t, cfg, b)
		})
	}
}

// A process that hangs with the lock keeps others from publishing for ten seconds each, and none from reading.
func TestVolume_lockedByAnother(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, v, b := published(t, layout, TypePEM)
		d, err := v.unlocked(cfg.Dir)
		require.NoError(t, err)
		unlock, err := lock(d, nil)
		require.NoError(t, err)
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			found, err := Read(cfg)
			require.NoError(t, err)
			require.True(t, found.equal(b))
			require.Equal(t, b.Note, ReadNote(cfg.Dir))
			require.Zero(t, time.Since(began))
			_, err = v.Publish(newBundle())
			require.EqualError(t, err, `locking "`+cfg.Dir+`": another process has worked in this directory for 10s`)
			require.GreaterOrEqual(t, time.Since(began), files.LockWait)
		})
		unlock()
		mustPublish(t, v, newBundle())
	})
}

// Two processes may find the directory missing at the same time.
func TestOpen_directoryMadeByAnotherMeanwhile(t *testing.T) {
	cfg, b := newConfig(t, LayoutSymlink, TypePEM), newBundle()
	published := false
	_, err := open(cfg, func(op, path string) error {
		if op == files.OpRename && !published {
			published = true
			faster := cfg
			faster.Dir = filepath.Join(filepath.Dir(cfg.Dir), "faster")
			mustPublish(t, mustOpen(t, faster), b)
			return os.Rename(faster.Dir, cfg.Dir)
		}
		return nil
	})
	require.NoError(t, err)
	requireCurrent(t, cfg, b)
	require.Equal(t, map[string]string{"certs": "drwxr-x---"}, listing(t, filepath.Dir(cfg.Dir)))
}
