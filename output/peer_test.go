package output

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
)

// The stores must open for other people's programs with the very bytes of the password files.
func TestVolume_Publish_keytoolReadsTheStores(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypeP12, TypeJKS)
	mustPublish(t, mustOpen(t, cfg), newBundle())
	for _, ext := range []string{"p12", "jks"} {
		for store, want := range map[string][]string{
			"keystore":   {"certificate, ", "PrivateKeyEntry", "Your keystore contains 1 entry"},
			"truststore": {"trusted-certificate-1, ", "trustedCertEntry", "Your keystore contains 1 entry"},
		} {
			text, err := peer.Keytool(t, "-list", "-keystore", filepath.Join(cfg.Dir, store+"."+ext),
				"-storepass:file", filepath.Join(cfg.Dir, store+".pass")).CombinedOutput()
			require.NoError(t, err, string(text))
			for _, part := range want {
				assert.Contains(t, string(text), part)
			}
		}
	}
}

func TestVolume_Publish_opensslReadsTheFiles(t *testing.T) {
	openssl := peer.Require(t, "openssl")[0]
	cfg := newConfig(t, LayoutInplace, TypeP12, TypePEM)
	mustPublish(t, mustOpen(t, cfg), newBundle())
	for _, args := range [][]string{
		{"pkcs12", "-in", "keystore.p12", "-passin", "file:keystore.pass", "-nodes", "-out", os.DevNull},
		{"pkcs12", "-in", "truststore.p12", "-passin", "file:truststore.pass", "-nokeys", "-out", os.DevNull},
		{"verify", "-attime", "1772370000", "-CAfile", "truststore.pem", "-untrusted", "keystore.pem", "keystore-combined.pem"},
		{"pkey", "-in", "key.pem", "-noout", "-check"},
	} {
		cmd := exec.Command(openssl, args...)
		cmd.Dir = cfg.Dir
		text, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", args, text)
	}
}
