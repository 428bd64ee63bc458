package enroll

import (
	"crypto"
	"crypto/x509"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/keygen"
)

// Of the steps before the request none fails with what internal/config lets pass, so no run of the program
// ends with the exit codes 3, 4 and 8 on the way to it; here they meet what it would refuse.
func TestEnroller_stepBeforeTheRequest_failsWithItsExitCode(t *testing.T) {
	key, err := keygen.GenerateKey("ECDSA-P256")
	require.NoError(t, err)
	discard := slog.New(slog.DiscardHandler)
	enroller := func(algorithm string, template *x509.CertificateRequest) *Enroller {
		cfg := Settings{Certificate: Certificate{KeyAlgorithm: algorithm, Template: template}}
		return &Enroller{Config: cfg, Log: discard, Now: time.Now}
	}
	_, noKey := enroller("RSA-1", nil).newKey(discard)
	_, noCSR := enroller("", &x509.CertificateRequest{DNSNames: []string{"é"}}).order(key, discard)
	_, noPEM := newRequest(order{key: struct{ crypto.Signer }{key}})
	for name, row := range map[string]struct {
		err  error
		code int
		text string
	}{
		"a key of no known algorithm":        {noKey, 3, "making a key pair: "},
		"a name that fits no certificate":    {noCSR, 4, "making the certificate signing request: "},
		"a key that only signs, as in a HSM": {noPEM, 8, "preparing the PK header: "},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, row.err, row.text)
			assert.Equal(t, row.code, StageOf(row.err).ExitCode())
		})
	}
}
