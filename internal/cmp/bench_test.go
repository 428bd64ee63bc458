package cmp

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkClient_Initialize(b *testing.B) {
	p := newPKI(b)
	r := &responder{t: b, testPKI: p}
	cert := p.leaf(b, nil)
	r.body = func(_ *PKIMessage, honest PKIBody) PKIBody {
		if honest.Type == BodyIP {
			honest.Content = r.granted(cert)
		}
		return honest
	}
	c, _ := testClient(b, r, nil)
	for b.Loop() {
		_, err := c.Initialize(b.Context(), Request{CSR: p.csr, Key: p.key})
		require.NoError(b, err)
	}
}

func BenchmarkMAC_key(b *testing.B) {
	for _, kind := range []Protection{ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1} {
		b.Run(string(kind), func(b *testing.B) {
			mac, err := NewMAC(kind)
			require.NoError(b, err)
			for b.Loop() {
				_, err := mac.key([]byte(testSecret))
				require.NoError(b, err)
			}
		})
	}
}
