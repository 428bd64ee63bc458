package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
)

// What openssl and keytool print of a certificate's names can be given back as SANS, and means the same.
func TestSANs_asOtherProgramsPrintThem_giveTheSameNames(t *testing.T) {
	s := start(t)
	const names = "app.example.org,*.example.org,192.0.2.1,2001:db8::1,ops@example.org,spiffe://td/ns/app,urn:isbn:1"
	ask := func(sans string) string {
		return filepath.Join(fetch(t, s, "SANS="+sans, "OUTPUT_TYPE=PEM", "KEY_ALGORITHM=ECDSA-P256"), "keystore.pem")
	}
	openssl := peer.Require(t, "openssl")[0]
	print := func(path string) string {
		out, err := exec.Command(openssl, "x509", "-in", path, "-noout", "-ext", "subjectAltName").CombinedOutput()
		require.NoError(t, err, string(out))
		_, list, found := strings.Cut(string(out), ":")
		require.True(t, found, string(out))
		return strings.TrimSpace(list)
	}
	certificate := ask(names)
	printed := print(certificate)
	require.Contains(t, printed, "IP Address:192.0.2.1")
	assert.Equal(t, printed, print(ask(printed)), "openssl's way")

	var list []string
	for _, line := range regexp.MustCompile(`(?m)^ +(DNSName|IPAddress|RFC822Name|URIName): .*$`).FindAllString(keytool(t, "-printcert", "-file", certificate), -1) {
		list = append(list, strings.TrimSpace(line))
	}
	require.Len(t, list, 7)
	assert.Equal(t, printed, print(ask(strings.Join(list, ","))), "keytool's way")
}
