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
