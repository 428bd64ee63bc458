package interop

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// A CSR of OpenSSL with extensions that a profile forbids, sent to a path of RFC 9483, 6.1.
func TestDevCA_opensslClient_extensionsAreHeldToTheProfile(t *testing.T) {
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	const (
		encipher = "keyUsage=critical,digitalSignature,keyEncipherment"
		agree    = "keyUsage=critical,digitalSignature,keyAgreement"
		refused  = "rejection, badCertTemplate"
	)
	const rsa, ec, ed25519 = "rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256", "ed25519"
	for _, row := range []struct {
		name, key, extension string
		strict               bool
		want                 string // of the outcome; empty: issued, with what openssl x509 shows
		shows, lacks         string
	}{
		{name: "RSA", key: rsa, extension: encipher, strict: true, shows: "Key Encipherment"},
		{name: "EC", key: ec, extension: encipher, shows: "Digital Signature", lacks: "Encipherment"},
		{name: "EC when strict", key: ec, extension: encipher, strict: true, want: refused},
		{name: "EC for agreement", key: ec, extension: agree, strict: true, shows: "Key Agreement"},
		{name: "Ed25519", key: ed25519, extension: agree, shows: "Digital Signature", lacks: "Agreement"},
		{name: "no CA", key: ec, extension: "basicConstraints=critical,CA:FALSE",
			shows: "CA:FALSE", lacks: "pathlen"},
		{name: "no CA with a path length", key: ec,
			extension: "basicConstraints=critical,CA:FALSE,pathlen:0", want: refused},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d := startDevCA(t, devca.Config{StrictKeyUsage: row.strict})
			key, csr, out := d.dir+"/key.pem", d.dir+"/csr.pem", d.dir+"/out.pem"
			args := add(nil, "req -new -nodes -subj /O=Interop/CN=leaf -addext "+row.extension+
				" -keyout "+key+" -out "+csr+" -newkey "+row.key)
			made, err := exec.Command(openssl, args...).CombinedOutput()
			require.NoError(t, err, string(made))

			output, err := d.openssl(t, bySecret, "-cmd p10cr -path .well-known/cmp/p/profile/pkcs10",
				"-csr", csr, "-certout", out)

			if row.want != "" {
				require.Error(t, err)
				assert.Equal(t, row.want, opensslOutcome(output), output)
				return
			}
			require.NoError(t, err, output)
			text, err := exec.Command(openssl, "x509", "-noout", "-text", "-in", out).CombinedOutput()
			require.NoError(t, err, string(text))
			assert.Contains(t, string(text), row.shows)
			if row.lacks != "" {
				assert.NotContains(t, string(text), row.lacks)
			}
		})
	}
}

// An info type without a value is an answer: nothing is demanded of templates.
func TestDevCA_opensslClient_certReqTemplateIsAnswered(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	d := startDevCA(t, devca.Config{})
	output, err := d.openssl(t, bySecret, "-cmd genm -path .well-known/cmp/getcertreqtemplate",
		"-infotype certReqTemplate")
	require.NoError(t, err, output)
	assert.Contains(t, output, "genp contains ITAV of type: id-it-certReqTemplate")
}
