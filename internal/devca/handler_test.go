package devca_test

import (
	"crypto/x509"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestNew_makesOtherKeysUnderTheSameNames(t *testing.T) {
	one, two := newCA(devca.Config{}), newCA(devca.Config{})
	assert.Equal(t, one.Root().RawSubject, two.Root().RawSubject)
	assert.NotEqual(t, one.Root().PublicKey, two.Root().PublicKey)
	assert.NotEqual(t, one.Issuing().PublicKey, two.Issuing().PublicKey)
	assert.True(t, strings.HasPrefix(string(one.RootPEM()), "-----BEGIN CERTIFICATE-----\n"))
	for _, authority := range []*x509.Certificate{one.Root(), one.Issuing()} {
		assert.Contains(t, authority.Subject.CommonName, "DEVELOPMENT ONLY")
	}
}

func FuzzCA_anyBody(f *testing.F) {
	ca := newCA(devca.Config{Faults: devca.Faults{Waiting: 1}})
	for _, m := range []*cmp.PKIMessage{
		ir(f),
		message(cmp.BodyP10CR, cmp.CertificationRequest(csr(newKey()).Raw)),
		message(cmp.BodyCertConf, cmp.CertConfirmContent{{}}),
		message(cmp.BodyPollReq, cmp.PollReqContent{0}),
		message(cmp.BodyGenM, cmp.GeneralContent{{Type: cmp.OIDCACerts}, {Type: cmp.OIDRootCACert}}),
		message(cmp.BodyRR, cmp.RevReqContent{{}}),
		message(cmp.BodyError, &cmp.ErrorMsgContent{StatusInfo: cmp.Rejection("no", cmp.FailBadAlg)}),
	} {
		f.Add(fixture.Must(m.Marshal()))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		// As it came, it hardly gets past its protection; what parses is protected and tried again.
		recorder := post(ca, "/", cmp.MediaType, body)
		_, err := cmp.ParsePKIMessage(recorder.Body.Bytes())
		require.NoError(t, err)
		m, err := cmp.ParsePKIMessage(body)
		if err != nil {
			return
		}
		m.Header.PVNO, m.Header.TransactionID, m.Header.SenderNonce = cmp.PVNO2, cmp.NewNonce(), cmp.NewNonce()
		m.Header.SenderKID, m.Header.MessageTime = []byte(devca.DefaultReference), time.Time{}
		send(t, ca, protect(t, m))
	})
}

func TestCA_memory_staysFlat(t *testing.T) {
	ca := newCA(devca.Config{})
	body := ir(t).Body.Content
	enroll := func(times int) uint64 {
		for range times {
			m := message(cmp.BodyIR, body)
			m.Header.AddImplicitConfirm()
			send(t, ca, protect(t, m))
		}
		runtime.GC()
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		return memory.HeapAlloc
	}
	before := enroll(100)
	after := enroll(1000)
	assert.Less(t, int64(after)-int64(before), int64(2<<20), "only its transactionID is kept")
}

func BenchmarkCA_ir(b *testing.B) {
	ca := newCA(devca.Config{})
	body := ir(b).Body.Content
	requests := make([][]byte, b.N)
	for i := range requests {
		m := message(cmp.BodyIR, body)
		m.Header.AddImplicitConfirm()
		requests[i] = fixture.Must(protect(b, m).Marshal())
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, der := range requests {
		post(ca, "/", cmp.MediaType, der)
	}
}
