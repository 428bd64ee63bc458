package main

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/ca"
)

// anchored is goodServers with files of certificates beside it.
const anchored = `{"cmpv2Servers": [{"caName": "RA", "url": "http://127.0.0.1:1/cmp", "issuerDN": "CN=ManagementCA",
	"authentication": {"iak": "very-secret-iak", "rv": "rv"}, "trustAnchors": "anchors.pem"}]}`

func certificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// One certificate that can verify nothing, in the truststore or among the anchors, costs the others nothing.
func TestRun_check_skipsAnchorsThatCanVerifyNothing(t *testing.T) {
	authority := newCA(t)
	env := files(t, authority, anchored)
	anchors := filepath.Join(filepath.Dir(env["CMP_SERVERS_PATH"]), "anchors.pem")
	bad, good := certificate(ca.NegativeSerial(authority.Root)), certificate(authority.Root.Raw)
	require.NoError(t, os.WriteFile(env["TRUSTSTORE_PATH"], append(bad, good...), 0o600))
	ed448, err := os.ReadFile("../../test/testdata/certificates/ed448.pem")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(anchors, append(ed448, good...), 0o600))

	code, _, stderr := runWith(t, env, "--check")

	assert.Equal(t, exitOK, code, stderr)
	assert.Contains(t, stderr, `certificate 1, \"CN=TLS Root CA,O=Throwaway\", can verify nothing here: it cannot be parsed: x509: negative serial number; it is skipped`)
	assert.Contains(t, stderr, `trustAnchors: in \"anchors.pem\", certificate 1, `)
	assert.Contains(t, stderr, `can verify nothing here: its key is of an unsupported kind (Ed448); it is skipped`)
	assert.Equal(t, 2, strings.Count(stderr, "is skipped"))

	require.NoError(t, os.WriteFile(env["TRUSTSTORE_PATH"], bad, 0o600))
	require.NoError(t, os.WriteFile(anchors, ed448, 0o600))
	code, _, stderr = runWith(t, env, "--check")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, `has no certificate that can be used: certificate 1, "CN=TLS Root CA,O=Throwaway", can verify nothing here`)
	assert.Contains(t, stderr, `cmpv2Servers[0].trustAnchors: has no certificate in "anchors.pem" that can be used: certificate 1, `)
}

func TestRun_check_warnsOfAnAnchorWithoutItsRoot(t *testing.T) {
	authority := newCA(t)
	env := files(t, authority, anchored)
	anchors := filepath.Join(filepath.Dir(env["CMP_SERVERS_PATH"]), "anchors.pem")
	require.NoError(t, os.WriteFile(anchors, certificate(authority.Issuing.Raw), 0o600))

	code, _, stderr := runWith(t, env, "--check")

	assert.Equal(t, exitOK, code, stderr)
	assert.Contains(t, stderr, `trustAnchors: has \"CN=TLS Issuing CA,O=Throwaway\", but not the root above it, \"CN=TLS Root CA,O=Throwaway\"`)
	require.NoError(t, os.WriteFile(anchors, append(certificate(authority.Issuing.Raw), certificate(authority.Root.Raw)...), 0o600))
	_, _, stderr = runWith(t, env, "--check")
	assert.NotContains(t, stderr, "but not the root above it")
}
