package devca_test

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestCA_requests_areAnsweredWithCertificates(t *testing.T) {
	check := func(t *testing.T, config cmp.Config, response devca.ResponseProtection) {
		ca, url := start(t, devca.Config{ResponseProtection: response})
		config.URL, config.Recipient = url, "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY"
		config.Secret, config.Reference = []byte(devca.DefaultSecret), devca.DefaultReference
		config.TrustAnchors = []*x509.Certificate{ca.Root()}
		c := fixture.Must(cmp.New(config))
		key := newKey()
		request := cmp.Request{CSR: csr(key), Key: key}
		issued, err := c.Initialize(t.Context(), request)
		require.NoError(t, err)
		assert.Equal(t, []*x509.Certificate{ca.Issuing()}, issued.Chain[1:])
		assert.Equal(t, []*x509.Certificate{ca.Root()}, issued.Trusted)
		_, err = c.Certify(t.Context(), request)
		require.NoError(t, err)
		_, err = c.UpdateKey(t.Context(), request, cmp.Signer{Key: key, Certificate: issued.Chain[0]})
		require.NoError(t, err)
		stats := ca.Stats()
		assert.Equal(t, [3]uint64{3, 1, 3}, [3]uint64{stats.Issued, stats.Updated, stats.Confirmed})
	}
	for _, protection := range []cmp.Protection{"pbm-sha256", "pbm-sha1", "pbmac1"} {
		for _, response := range []devca.ResponseProtection{devca.RespondMAC, devca.RespondSignature} {
			for _, implicit := range []bool{true, false} {
				t.Run(fmt.Sprint(protection, " ", response, " ", implicit), func(t *testing.T) {
					check(t, cmp.Config{Protection: protection, ImplicitConfirm: implicit}, response)
				})
			}
		}
	}
}

func TestCA_transactionID_isUsedOnceByManyAtOnce(t *testing.T) {
	ca := newCA(devca.Config{})
	der := fixture.Must(protect(t, ir(t)).Marshal())
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { post(ca, "/", cmp.MediaType, der) })
	}
	group.Wait()
	stats := ca.Stats()
	assert.Equal(t, [2]uint64{1, 7}, [2]uint64{stats.Issued, stats.Errors})
}

// RFC 9483, 4.3: an info type without a value says that there is nothing to give; of what is not
// known nothing is said.
func TestCA_generalMessages(t *testing.T) {
	ca, stale := newCA(devca.Config{}), newCA(devca.Config{})
	authorities := fixture.Must(cmp.MarshalCACerts([][]byte{ca.Issuing().Raw, ca.Root().Raw}))
	update := fixture.Must(cmp.RootCAKeyUpdate{NewWithNew: ca.Root().Raw}.Marshal())
	type info = cmp.InfoTypeAndValue
	for name, row := range map[string]struct {
		asked  info
		answer cmp.GeneralContent
	}{
		"an unknown type": {info{Type: asn1.ObjectIdentifier{1, 2, 3}}, nil},
		"caCerts": {info{Type: cmp.OIDCACerts},
			cmp.GeneralContent{{Type: cmp.OIDCACerts, Value: authorities}}},
		"the current root": {info{Type: cmp.OIDRootCACert, Value: ca.Root().Raw},
			cmp.GeneralContent{{Type: cmp.OIDRootCAKeyUpdate}}},
		"an earlier root": {info{Type: cmp.OIDRootCACert, Value: stale.Root().Raw},
			cmp.GeneralContent{{Type: cmp.OIDRootCAKeyUpdate, Value: update}}},
		"certReqTemplate": {info{Type: cmp.OIDCertReqTemplate}, cmp.GeneralContent{{Type: cmp.OIDCertReqTemplate}}},
		"crlStatusList":   {info{Type: cmp.OIDCRLStatusList}, cmp.GeneralContent{{Type: cmp.OIDCRLs}}},
	} {
		answer := send(t, ca, protect(t, message(cmp.BodyGenM, cmp.GeneralContent{row.asked})))
		assert.Equal(t, row.answer, answer.Body.Content, name)
	}
}
