package output

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

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
