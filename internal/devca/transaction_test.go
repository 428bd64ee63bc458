package devca_test

import (
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestCA_requests_areAnsweredWithCertificates(t *testing.T) {
	for _, protection := range []cmp.Protection{cmp.ProtectionPBMSHA256, cmp.ProtectionPBMSHA1, cmp.ProtectionPBMAC1} {
		for _, response := range []devca.ResponseProtection{devca.RespondMAC, devca.RespondSignature} {
			for name, implicit := range map[string]bool{"implicit confirmation": true, "certConf": false} {
				t.Run(string(protection)+" answered by "+string(response)+" with "+name, func(t *testing.T) {
					ca, url := start(t, devca.Config{ResponseProtection: response})
					c, err := cmp.New(cmp.Config{
						URL: url, Recipient: "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
						Secret:    []byte(devca.DefaultSecret),
						Reference: devca.DefaultReference, TrustAnchors: []*x509.Certificate{ca.Root()},
						Protection: protection, ImplicitConfirm: implicit,
					})
					require.NoError(t, err)
					key := newKey()
					request := cmp.Request{CSR: csr(t, key), Key: key}
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
				})
			}
		}
	}
}

func TestCA_transactionID_isUsedOnce(t *testing.T) {
	ca := newCA(devca.Config{})
	const inUse = "error rejection transactionIdInUse: this transactionID is in use already"
	implicit := ir(t)
	implicit.Header.AddImplicitConfirm()
	for name, first := range map[string]*cmp.PKIMessage{
		"after a certificate that waits for its confirmation": ir(t),
		"after a certificate that was confirmed implicitly":   implicit,
		"after a rejection":       message(cmp.BodyIR, cmp.CertReqMessages{template(t, newKey())}),
		"after a general message": message(cmp.BodyGenM, cmp.GeneralContent{}),
	} {
		assert.NotEqual(t, inUse, outcome(ask(t, ca, first)), name)
		again := ir(t)
		again.Header.TransactionID = first.Header.TransactionID
		assert.Equal(t, inUse, outcome(ask(t, ca, again)), name)
	}
}

func TestCA_transactionID_isUsedOnceByManyAtOnce(t *testing.T) {
	ca := newCA(devca.Config{})
	der := fixture.Must(withMAC(t, ir(t)).Marshal())
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { post(ca, "/", cmp.MediaType, der) })
	}
	group.Wait()
	stats := ca.Stats()
	assert.Equal(t, [2]uint64{1, 7}, [2]uint64{stats.Issued, stats.Errors})
}

func TestCA_confirmations(t *testing.T) {
	sum := func(c *x509.Certificate) []byte {
		sum := sha512.Sum512(c.Raw)
		return sum[:]
	}
	oidSHA512 := cmp.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}}
	unknown := cmp.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 3}}
	rejection := cmp.Rejection("not what I want", cmp.FailBadCertTemplate)
	accepted := cmp.PKIStatusInfo{Status: cmp.StatusAccepted}
	// RFC 9483, 4.1.1: a confirmation that accepts has no failInfo.
	contradiction := cmp.PKIStatusInfo{Status: cmp.StatusAccepted, FailInfo: cmp.NewFailureInfo(cmp.FailIncorrectData)}
	type status = cmp.CertStatus
	type spoil = func(s *status, c *x509.Certificate, m *cmp.PKIMessage)
	info := func(info *cmp.PKIStatusInfo) spoil {
		return func(s *status, _ *x509.Certificate, _ *cmp.PKIMessage) { s.StatusInfo = info }
	}
	hash := func(algorithm *cmp.AlgorithmIdentifier, pvno int) spoil {
		return func(s *status, c *x509.Certificate, m *cmp.PKIMessage) {
			s.HashAlg, s.CertHash, m.Header.PVNO = algorithm, sum(c), pvno
		}
	}
	for name, row := range map[string]struct {
		spoil   spoil
		revoked bool
	}{
		"one that fits":                    {func(*status, *x509.Certificate, *cmp.PKIMessage) {}, false},
		"one that says accepted":           {info(&accepted), false},
		"one by another hash in version 3": {hash(&oidSHA512, cmp.PVNO3), false},
		"one by another hash in version 2": {hash(&oidSHA512, cmp.PVNO2), true},
		"one by a hash that is not known":  {hash(&unknown, cmp.PVNO3), true},
		"one that accepts with a failInfo": {info(&contradiction), true},
		"a rejection":                      {info(&rejection), true},
		"one of another certificate": {func(s *status, _ *x509.Certificate,
			_ *cmp.PKIMessage) {
			s.CertHash = sum(&x509.Certificate{})[:32]
		}, true},
		"one of another request": {func(s *status, _ *x509.Certificate, _ *cmp.PKIMessage) { s.CertReqID = 1 }, true},
		"two": {func(s *status, _ *x509.Certificate, m *cmp.PKIMessage) {
			m.Body.Content = cmp.CertConfirmContent{*s, *s}
		}, true},
		"a rejection of everything": {func(_ *status, _ *x509.Certificate, m *cmp.PKIMessage) {
			m.Body.Content = cmp.CertConfirmContent{}
		}, true},
		"one with a wrong nonce": {func(_ *status, _ *x509.Certificate, m *cmp.PKIMessage) {
			m.Header.RecipNonce = cmp.NewNonce()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(devca.Config{})
			answer := ask(t, ca, ir(t))
			assert.False(t, answer.Header.ImplicitConfirm(), "not granted when not asked for")
			certificate, status := granted(t, answer), confirmation(t, answer)
			m := confirming(answer)
			m.Body.Content = nil
			row.spoil(&status, certificate, m)
			if m.Body.Content == nil {
				m.Body.Content = cmp.CertConfirmContent{status}
			}
			checkText(t, outcome(ask(t, ca, m)))
			assert.Equal(t, row.revoked, ca.Revoked(certificate.SerialNumber))
			stats, want := ca.Stats(), [2]uint64{1, 0}
			if row.revoked {
				want = [2]uint64{0, 1}
			}
			assert.Equal(t, want, [2]uint64{stats.Confirmed, stats.Revoked})
			assert.Equal(t,
				"error rejection certConfirmed: the transaction has ended: its certificate is confirmed or given up",
				outcome(ask(t, ca, confirming(answer, status))), "once is enough")
		})
	}
}

const otherCredentials = "error rejection wrongIntegrity: certConf is protected by other " +
	"credentials than the request was"

func TestCA_confirmation_byOtherCredentials_isRefusedAndLeavesTheTransaction(t *testing.T) {
	ca := newCA(devca.Config{})
	signer, other := enrolled(t, ca), enrolled(t, ca)
	answer := ask(t, ca, ir(t))
	m := confirming(answer, confirmation(t, answer))
	assert.Equal(t, otherCredentials, outcome(send(t, ca, withSignature(t, m, other))))
	assert.Equal(t, "pkiconf", outcome(ask(t, ca, confirming(answer, confirmation(t, answer)))))

	answer = send(t, ca, withSignature(t, crmf(t, cmp.BodyCR, newKey(), nil), signer))
	byAnother := withSignature(t, confirming(answer, confirmation(t, answer)), other)
	assert.Equal(t, otherCredentials, outcome(send(t, ca, byAnother)))
	byAnother.ExtraCerts = nil
	const wrong = "error rejection badMessageCheck: the protection is wrong: x509: ECDSA verification failure"
	assert.Equal(t, wrong, outcome(send(t, ca, byAnother)))

	m = withSignature(t, confirming(answer, confirmation(t, answer)), signer)
	m.ExtraCerts = nil
	assert.Equal(t, "pkiconf", outcome(send(t, ca, m)), "a later message may leave out the signer's certificate")
}

func TestCA_p10cr_isConfirmedWithEitherCertReqID(t *testing.T) {
	ca := newCA(devca.Config{})
	for _, id := range []int64{-1, 0} {
		answer := ask(t, ca, p10cr(csr(t, newKey()).Raw))
		status := confirmation(t, answer)
		assert.EqualValues(t, -1, status.CertReqID)
		status.CertReqID = id
		assert.Equal(t, "pkiconf", outcome(ask(t, ca, confirming(answer, status))))
	}
}

func TestCA_certificate_neverConfirmed_isRevoked(t *testing.T) {
	now := newClock()
	ca := newCA(devca.Config{Now: now.now})
	answer := ask(t, ca, ir(t))
	serial := granted(t, answer).SerialNumber
	now.at = now.at.Add(10 * time.Minute)
	assert.False(t, ca.Revoked(serial))
	now.at = now.at.Add(time.Second)
	assert.True(t, ca.Revoked(serial))
	assert.Equal(t, "error rejection badRequest: certConf is for a transaction that is not known",
		outcome(ask(t, ca, confirming(answer, confirmation(t, answer)))))
}

func TestCA_errorFromTheClient_endsTheTransaction(t *testing.T) {
	ca := newCA(devca.Config{})
	report := &cmp.ErrorMsgContent{StatusInfo: cmp.Rejection("I give up", cmp.FailSystemFailure)}
	answer := ask(t, ca, ir(t))
	assert.Equal(t, "pkiconf", outcome(ask(t, ca, follow(answer, cmp.BodyError, report))))
	assert.True(t, ca.Revoked(granted(t, answer).SerialNumber))

	ca.SetFaults(devca.Faults{Waiting: 1})
	answer = ask(t, ca, ir(t))
	assert.Equal(t, "pkiconf", outcome(ask(t, ca, follow(answer, cmp.BodyError, report))))
	assert.Equal(t, "error rejection badRequest: pollReq is not what the transaction waits for",
		outcome(ask(t, ca, polling(answer, 0))))
}

// RFC 9483, 3.1: senderNonce is fresh in every message.
func TestCA_senderNonceThatWasUsed_isRefused(t *testing.T) {
	const want = "error rejection badSenderNonce: senderNonce was used in a message before, want a fresh one"
	ca := newCA(devca.Config{})
	first := ir(t)
	answer := ask(t, ca, first)
	m := confirming(answer, confirmation(t, answer))
	m.Header.SenderNonce = first.Header.SenderNonce
	assert.Equal(t, want, outcome(ask(t, ca, m)), "within a transaction")
	assert.True(t, ca.Revoked(granted(t, answer).SerialNumber))

	other := ir(t)
	other.Header.SenderNonce = first.Header.SenderNonce
	assert.Equal(t, want, outcome(ask(t, ca, other)), "in another transaction")
}

func TestCA_revocation(t *testing.T) {
	ca := newCA(devca.Config{})
	signer, other, third := enrolled(t, ca), enrolled(t, ca), enrolled(t, ca)
	rr := func(issuer []byte, serial *big.Int) *cmp.PKIMessage {
		return message(cmp.BodyRR,
			cmp.RevReqContent{{CertDetails: cmp.CertTemplate{Issuer: issuer, SerialNumber: serial}}})
	}
	issuer := ca.Issuing().RawSubject
	serial := func(of *cmp.Signer) *big.Int { return of.Certificate.SerialNumber }
	for _, row := range []struct { // in this order
		name    string
		message *cmp.PKIMessage
	}{
		{"of another certificate than the signer's", withSignature(t, rr(issuer, serial(other)), signer)},
		{"of a certificate by another issuer", withMAC(t, rr(ca.Root().RawSubject, serial(other)))},
		{"of no certificate", withMAC(t, rr(issuer, nil))},
		{"of one's own", withSignature(t, rr(issuer, serial(signer)), signer)},
		{"of another's with the shared secret", withMAC(t, rr(issuer, serial(other)))},
		{"once more", withMAC(t, rr(issuer, serial(other)))},
		{"with what is revoked", withSignature(t, rr(issuer, serial(signer)), signer)},
		{"and then an update", withSignature(t, crmf(t, cmp.BodyKUR, newKey(), nil), other)},
	} {
		t.Run(row.name, func(t *testing.T) { checkText(t, outcome(send(t, ca, row.message))) })
	}
	assert.True(t, ca.Revoked(serial(signer)))
	assert.False(t, ca.Revoked(serial(third)))
}

// RFC 9483, 4.3: an info type without a value says that there is nothing to give; of what is not known nothing is said.
func TestCA_generalMessages(t *testing.T) {
	ca, stale := newCA(devca.Config{}), newCA(devca.Config{})
	authorities := fixture.Must(cmp.MarshalCACerts([][]byte{ca.Issuing().Raw, ca.Root().Raw}))
	update, err := cmp.RootCAKeyUpdate{NewWithNew: ca.Root().Raw}.Marshal()
	require.NoError(t, err)
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
		answer := ask(t, ca, message(cmp.BodyGenM, cmp.GeneralContent{row.asked}))
		assert.Equal(t, row.answer, answer.Body.Content, name)
	}
}
