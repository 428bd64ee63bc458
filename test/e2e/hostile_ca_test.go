package e2e

import (
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// tree is everything below a directory: files by content, links by what they point to.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		content := []byte("a directory")
		switch {
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			content = []byte("-> " + target)
		case entry.Type().IsRegular():
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		found[path] = string(content)
		return nil
	}))
	return found
}

// What a CA sends that must not be believed goes the whole way, through CMP and REST, and ends before the volume: the
// old set stays as it is, and nothing lies beside it.
func TestHostileCA_leavesTheOldSetAlone(t *testing.T) {
	const secret = "the-shared-secret-of-this-test"
	authority, err := devca.New(devca.Config{Secret: []byte(secret)})
	require.NoError(t, err)
	server := httptest.NewServer(authority)
	t.Cleanup(server.Close)
	asked, err := certservice.CMPBuilder(certservice.CMPOptions{Log: slog.New(slog.DiscardHandler)})(certservice.Server{
		CAName: fixture.CAName, URL: server.URL, IssuerDN: "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		IAK: secret, RV: devca.DefaultReference, Protection: certservice.ProtectionPBMSHA256,
	})
	require.NoError(t, err)
	s := service.Run(t, service.Options{Authority: asked})
	volume := filepath.Join(t.TempDir(), "volume")
	fetch := func(force string) (int, string) {
		return runs(t, s, volume, nil, "OUTPUT_TYPE=PEM,P12", "FORCE_ENROLL="+force, "RETRY_MAX_ELAPSED=20ms")
	}
	code, out := fetch("false")
	require.Zero(t, code, out)
	before := tree(t, volume)
	require.NotEmpty(t, before)

	for _, row := range []struct {
		name    string
		faults  devca.Faults
		want    string
		revoked bool // the CA is told that its certificate is not taken
	}{
		{"a certificate for another key", devca.Faults{WrongKey: true}, "checking public key of the CMP answer", false},
		{"a certificate for another key, to confirm", devca.Faults{WrongKey: true, Explicit: true},
			"checking public key of the CMP answer", true},
		{"an expired certificate", devca.Faults{Expired: true, Explicit: true},
			"checking validity of the CMP answer", true},
		{"another nonce", devca.Faults{WrongNonce: true}, "checking recipNonce of the CMP answer", false},
		{"an answer that is lost", devca.Faults{DropBodies: []cmp.BodyType{cmp.BodyIR}},
			"the CMP server did not answer", false},
		{"a confirmation that is lost", devca.Faults{Explicit: true, DropBodies: []cmp.BodyType{cmp.BodyCertConf}},
			"the CMP server did not answer", false},
		{"a refusal by anybody", devca.Faults{Unprotected: true},
			"CMPv2 server returned following error: (not authenticated) ", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			authority.SetFaults(row.faults)
			revoked := authority.Stats().Revoked

			code, out := fetch("true")

			assert.Equal(t, 5, code)
			assert.Contains(t, out, row.want)
			assert.NotContains(t, out, secret)
			assert.Equal(t, before, tree(t, volume))
			assert.Equal(t, row.revoked, authority.Stats().Revoked > revoked)
		})
	}

	authority.SetFaults(devca.Faults{})
	code, out = fetch("true")
	require.Zero(t, code, out)
	assert.NotEqual(t, before, tree(t, volume), "a good answer replaces the set")
}
