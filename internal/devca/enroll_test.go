package devca_test

import (
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
)

func TestCA_requests_areAnsweredWithCertificates(t *testing.T) {
	for _, protection := range []cmp.Protection{cmp.ProtectionPBMSHA256, cmp.ProtectionPBMSHA1, cmp.ProtectionPBMAC1} {
		for _, response := range []devca.ResponseProtection{devca.RespondMAC, devca.RespondSignature} {
			for name, implicit := range map[string]bool{"implicit confirmation": true, "certConf": false} {
				t.Run(string(protection)+" answered by "+string(response)+" with "+name, func(t *testing.T) {
					ca, url := start(t, devca.Config{ResponseProtection: response})
					c := client(t, ca, url, func(config *cmp.Config) {
						config.Protection, config.ImplicitConfirm = protection, implicit
					})
					first := request(t)
					issued, err := c.Initialize(t.Context(), first)
					require.NoError(t, err)
					assert.Equal(t, []*x509.Certificate{ca.Issuing()}, issued.Chain[1:])
					assert.Equal(t, []*x509.Certificate{ca.Root()}, issued.Trusted)
					_, err = c.Certify(t.Context(), request(t))
					require.NoError(t, err)
					_, err = c.UpdateKey(t.Context(), request(t), cmp.Signer{Key: first.Key, Certificate: issued.Chain[0]})
					require.NoError(t, err)
					stats := ca.Stats()
					assert.Equal(t, [3]uint64{3, 1, 3}, [3]uint64{stats.Issued, stats.Updated, stats.Confirmed})
				})
			}
		}
	}
}

func BenchmarkCA_ir(b *testing.B) {
	ca, err := devca.New(devca.Config{})
	require.NoError(b, err)
	key := newKey(b)
	body := cmp.CertReqMessages{signed(b, template(b, key, "leaf.example.org"), key)}
	requests := make([][]byte, b.N)
	for i := range requests {
		m := message(cmp.BodyIR, body)
		m.Header.AddImplicitConfirm()
		requests[i], err = withMAC(b, m).Marshal()
		require.NoError(b, err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, der := range requests {
		post(ca, "/", cmp.MediaType, der)
	}
}
