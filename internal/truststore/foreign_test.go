package truststore

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

func foreign(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../test/testdata/stores", name))
	require.NoError(t, err)
	return data
}

// Files of other writers as the truststore that is merged into, and as one that is merged. keytool reads the result.
func TestKeytool_storesOfOthersAreMerged(t *testing.T) {
	names := []string{
		"bouncycastle-ber-trusted.p12", "bouncycastle-ber.p12", "mac-sha512-256.p12", "sha1-2des.p12",
		"byte-order-mark-trusted.pem", "crl.pem", "joined.pem", "trusted-certificate.pem", "x509-certificate.pem",
		"utf-16.pem", "cr-only.pem", "one-line.pem", "indented.pem",
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.write("base", foreign(t, name))
			p.write("other.pem", pemOf(1))
			before, err := keystore.OpenClosed(foreign(t, name), password)
			require.NoError(t, err)

			p.run(p.merge("base", "other.pem"))

			after, err := keystore.Open(p.read("base"), password)
			require.NoError(t, err)
			want := len(before.Entries) + 1
			if before.Format == keystore.PEM {
				store, err := keystore.OpenClosed(p.read("base"), "")
				require.NoError(t, err)
				assert.Len(t, store.Entries, want)
			} else {
				assert.Empty(t, after.Unreadable)
				listing := keytool(p, "-list", "-keystore", "base", "-storepass", password)
				assert.Contains(t, listing, "pem-trusted-certificate-0")
			}
		})
	}
	t.Run("all into one", func(t *testing.T) {
		p := newPlace(t)
		p.write("target.p12", p12(t, trusted(t, "mine", 0)...))
		for _, name := range names {
			p.write(name, foreign(t, name))
		}
		added := p.run(p.merge(append([]string{"target.p12"}, names...)...)).Added
		require.NotEmpty(t, added)
		listing := keytool(p, "-list", "-keystore", "target.p12", "-storepass", password)
		for _, a := range added {
			assert.Contains(t, listing, a.Alias+", ")
		}
	})
}

func TestRun_mountedFile_isRefusedWithAHint(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", jks(t, trusted(t, "a", 0)...))
	p.write("other.pem", pemOf(1))
	if err := syscall.Mount(p.path("base.jks"), p.path("base.jks"), "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("mounting wants root in this namespace: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(p.path("base.jks"), 0)) })
	cfg := p.merge("base.jks", "other.pem")

	_, err := newRun(cfg, nil).do(cfg, nil)

	require.EqualError(t, err, `writing destination: "`+p.path("base.jks")+`" is mounted by itself, as with a subPath or a volume for one file, `+
		`and cannot be replaced: mount the directory that it is in`)
	assert.Equal(t, 11, ExitCode(err))
	assert.NoFileExists(t, p.path("base.jks.bak"))
	errs := Check(cfg, never)
	require.Len(t, errs, 1)
	assert.True(t, strings.HasSuffix(errs[0].Error(), "mount the directory that it is in"))
}
