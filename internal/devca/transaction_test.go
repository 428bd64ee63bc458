package devca_test

import (
	"encoding/asn1"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

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
