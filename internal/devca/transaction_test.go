package devca_test

import (
	"crypto/sha256"
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
)

func TestCA_transactionID_isUsedOnce(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	const inUse = "error rejection transactionIdInUse: this transactionID is in use already"
	for _, row := range []struct {
		name  string
		first *cmp.PKIMessage
	}{
		{"after a certificate that waits for its confirmation", ir(t)},
		{"after a certificate that was confirmed implicitly", func() *cmp.PKIMessage {
			m := ir(t)
			m.Header.AddImplicitConfirm()
			return m
		}()},
		{"after a rejection", message(cmp.BodyIR, cmp.CertReqMessages{template(t, newKey(t), "leaf.example.org")})},
		{"after a general message", message(cmp.BodyGenM, cmp.GeneralContent{})},
	} {
		t.Run(row.name, func(t *testing.T) {
			first := send(t, ca, withMAC(t, row.first))
			assert.NotEqual(t, inUse, outcome(first))
			again := ir(t)
			again.Header.TransactionID = row.first.Header.TransactionID
			assert.Equal(t, inUse, outcome(send(t, ca, withMAC(t, again))))
		})
	}
}

func TestCA_transactionID_isUsedOnceByManyAtOnce(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	m := withMAC(t, ir(t))
	der, err := m.Marshal()
	require.NoError(t, err)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { post(ca, "/", cmp.MediaType, der) })
	}
	group.Wait()
	stats := ca.Stats()
	assert.Equal(t, [2]uint64{1, 7}, [2]uint64{stats.Issued, stats.Errors})
}

// confirmation accepts the certificate in an answer.
func confirmation(t testing.TB, answer *cmp.PKIMessage) cmp.CertStatus {
	hash, _ := cmp.CertHash(granted(t, answer))
	return cmp.CertStatus{CertHash: hash, CertReqID: answer.Body.Content.(*cmp.CertRepMessage).Response[0].CertReqID}
}

func TestCA_confirmations(t *testing.T) {
	sha512Sum := func(certificate *x509.Certificate) []byte {
		sum := sha512.Sum512(certificate.Raw)
		return sum[:]
	}
	oidSHA512 := cmp.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}}
	rejection := cmp.Rejection("not what I want", cmp.FailBadCertTemplate)
	accepted := cmp.PKIStatusInfo{Status: cmp.StatusAccepted}
	for _, row := range []struct {
		name    string
		spoil   func(status *cmp.CertStatus, certificate *x509.Certificate, m *cmp.PKIMessage) cmp.CertConfirmContent
		want    string
		revoked bool
	}{
		{"one that fits", func(s *cmp.CertStatus, _ *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			return cmp.CertConfirmContent{*s}
		}, "pkiconf", false},
		{"one that says accepted", func(s *cmp.CertStatus, _ *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			s.StatusInfo = &accepted
			return cmp.CertConfirmContent{*s}
		}, "pkiconf", false},
		{"one by another hash in version 3", func(s *cmp.CertStatus, c *x509.Certificate, m *cmp.PKIMessage) cmp.CertConfirmContent {
			s.HashAlg, s.CertHash, m.Header.PVNO = &oidSHA512, sha512Sum(c), cmp.PVNO3
			return cmp.CertConfirmContent{*s}
		}, "pkiconf", false},
		{"one by another hash in version 2", func(s *cmp.CertStatus, c *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			s.HashAlg, s.CertHash = &oidSHA512, sha512Sum(c)
			return cmp.CertConfirmContent{*s}
		}, "error rejection unsupportedVersion: certConf has hashAlg, which needs pvno 3, and pvno 2", true},
		{"one by a hash that nobody knows", func(s *cmp.CertStatus, c *x509.Certificate, m *cmp.PKIMessage) cmp.CertConfirmContent {
			s.HashAlg, m.Header.PVNO = &cmp.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 3}}, cmp.PVNO3
			return cmp.CertConfirmContent{*s}
		}, "error rejection badAlg: computing certHash: hash algorithm 1.2.3 is not supported", true},
		{"one of another certificate", func(s *cmp.CertStatus, c *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			sum := sha256.Sum256(nil)
			s.CertHash = sum[:]
			return cmp.CertConfirmContent{*s}
		}, "error rejection badCertId: certHash is not the hash of the certificate that was issued", true},
		{"one of another request", func(s *cmp.CertStatus, c *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			s.CertReqID = 1
			return cmp.CertConfirmContent{*s}
		}, "error rejection badCertId: certConf has 1 CertStatus, the first for certReqId 1, want one for 0", true},
		{"two", func(s *cmp.CertStatus, c *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			return cmp.CertConfirmContent{*s, *s}
		}, "error rejection badCertId: certConf has 2 CertStatus, the first for certReqId 0, want one for 0", true},
		{"a rejection", func(s *cmp.CertStatus, c *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			s.StatusInfo = &rejection
			return cmp.CertConfirmContent{*s}
		}, "pkiconf", true},
		{"a rejection of everything", func(s *cmp.CertStatus, c *x509.Certificate, _ *cmp.PKIMessage) cmp.CertConfirmContent {
			return cmp.CertConfirmContent{}
		}, "pkiconf", true},
		{"one with a wrong nonce", func(s *cmp.CertStatus, c *x509.Certificate, m *cmp.PKIMessage) cmp.CertConfirmContent {
			m.Header.RecipNonce = cmp.NewNonce()
			return cmp.CertConfirmContent{*s}
		}, "error rejection badRecipientNonce: recipNonce is not the senderNonce of the last answer", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			ca, err := devca.New(devca.Config{})
			require.NoError(t, err)
			answer := send(t, ca, withMAC(t, ir(t)))
			assert.False(t, answer.Header.ImplicitConfirm(), "not granted when not asked for")
			certificate, status := granted(t, answer), confirmation(t, answer)
			m := follow(answer, cmp.BodyCertConf, nil)
			m.Body.Content = row.spoil(&status, certificate, m)
			assert.Equal(t, row.want, outcome(send(t, ca, withMAC(t, m))))
			assert.Equal(t, row.revoked, ca.Revoked(certificate.SerialNumber))
			stats := ca.Stats()
			if row.revoked {
				assert.Equal(t, [2]uint64{0, 1}, [2]uint64{stats.Confirmed, stats.Revoked})
			} else {
				assert.Equal(t, [2]uint64{1, 0}, [2]uint64{stats.Confirmed, stats.Revoked})
			}

			m = follow(answer, cmp.BodyCertConf, cmp.CertConfirmContent{status})
			assert.Equal(t, "error rejection certConfirmed: the transaction has ended: its certificate is confirmed or given up",
				outcome(send(t, ca, withMAC(t, m))), "once is enough")
		})
	}
}

func TestCA_confirmation_byOtherCredentials_isRefusedAndLeavesTheTransaction(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	other := enrolled(t, ca)
	answer := send(t, ca, withMAC(t, ir(t)))
	content := cmp.CertConfirmContent{confirmation(t, answer)}
	assert.Equal(t, "error rejection wrongIntegrity: certConf is protected by other credentials than the request was",
		outcome(send(t, ca, withSignature(t, follow(answer, cmp.BodyCertConf, content), other))))
	assert.Equal(t, "pkiconf", outcome(send(t, ca, withMAC(t, follow(answer, cmp.BodyCertConf, content)))))
}

func TestCA_confirmation_mayLeaveOutTheSignersCertificate(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	signer, other := enrolled(t, ca), enrolled(t, ca)
	cr := ir(t)
	cr.Body.Type = cmp.BodyCR
	answer := send(t, ca, withSignature(t, cr, signer))
	content := cmp.CertConfirmContent{confirmation(t, answer)}

	bySomebodyElse := withSignature(t, follow(answer, cmp.BodyCertConf, content), other)
	assert.Equal(t, "error rejection wrongIntegrity: certConf is protected by other credentials than the request was",
		outcome(send(t, ca, bySomebodyElse)))
	bySomebodyElse.ExtraCerts = nil
	assert.Equal(t, "error rejection badMessageCheck: the protection is wrong: x509: ECDSA verification failure", outcome(send(t, ca, bySomebodyElse)))

	m := withSignature(t, follow(answer, cmp.BodyCertConf, content), signer)
	m.ExtraCerts = nil
	assert.Equal(t, "pkiconf", outcome(send(t, ca, m)))
}

func TestCA_p10cr_isConfirmedWithEitherCertReqID(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	for _, id := range []int64{-1, 0} {
		answer := send(t, ca, withMAC(t, message(cmp.BodyP10CR, cmp.CertificationRequest(csr(t, newKey(t), "leaf.example.org").Raw))))
		status := confirmation(t, answer)
		assert.EqualValues(t, -1, status.CertReqID)
		status.CertReqID = id
		assert.Equal(t, "pkiconf", outcome(send(t, ca, withMAC(t, follow(answer, cmp.BodyCertConf, cmp.CertConfirmContent{status})))))
	}
}

func TestCA_certificate_neverConfirmed_isRevoked(t *testing.T) {
	now := newClock()
	ca, err := devca.New(devca.Config{Now: now.now})
	require.NoError(t, err)
	answer := send(t, ca, withMAC(t, ir(t)))
	certificate := granted(t, answer)
	now.at = now.at.Add(10 * time.Minute)
	assert.False(t, ca.Revoked(certificate.SerialNumber))
	now.at = now.at.Add(time.Second)
	assert.True(t, ca.Revoked(certificate.SerialNumber))
	m := follow(answer, cmp.BodyCertConf, cmp.CertConfirmContent{confirmation(t, answer)})
	assert.Equal(t, "error rejection badRequest: certConf is for a transaction that is not known", outcome(send(t, ca, withMAC(t, m))))
}

func TestCA_errorFromTheClient_endsTheTransaction(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	report := &cmp.ErrorMsgContent{StatusInfo: cmp.Rejection("I give up", cmp.FailSystemFailure)}
	answer := send(t, ca, withMAC(t, ir(t)))
	assert.Equal(t, "pkiconf", outcome(send(t, ca, withMAC(t, follow(answer, cmp.BodyError, report)))))
	assert.True(t, ca.Revoked(granted(t, answer).SerialNumber))

	ca.SetFaults(devca.Faults{Waiting: 1})
	answer = send(t, ca, withMAC(t, ir(t)))
	assert.Equal(t, "pkiconf", outcome(send(t, ca, withMAC(t, follow(answer, cmp.BodyError, report)))))
	assert.Equal(t, "error rejection badRequest: pollReq is not what the transaction waits for",
		outcome(send(t, ca, withMAC(t, follow(answer, cmp.BodyPollReq, cmp.PollReqContent{0})))))
}

func TestCA_revocation(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	signer, other, third := enrolled(t, ca), enrolled(t, ca), enrolled(t, ca)
	rr := func(issuer []byte, serial *big.Int) *cmp.PKIMessage {
		return message(cmp.BodyRR, cmp.RevReqContent{{CertDetails: cmp.CertTemplate{Issuer: issuer, SerialNumber: serial}}})
	}
	issuer := ca.Issuing().RawSubject
	for _, row := range []struct {
		name    string
		message *cmp.PKIMessage
		want    string
	}{
		{"of another certificate than the signer's", withSignature(t, rr(issuer, other.Certificate.SerialNumber), signer),
			"rp rejection notAuthorized: rr is signed by another certificate than it names"},
		{"of a certificate by another issuer", withMAC(t, rr(ca.Root().RawSubject, other.Certificate.SerialNumber)),
			"rp rejection badCertId: rr does not name a certificate by this CA as issuer and a serial number"},
		{"of no certificate", withMAC(t, rr(issuer, nil)),
			"rp rejection badCertId: rr does not name a certificate by this CA as issuer and a serial number"},
		{"of one's own", withSignature(t, rr(issuer, signer.Certificate.SerialNumber), signer), "rp accepted"},
		{"of another's with the shared secret", withMAC(t, rr(issuer, other.Certificate.SerialNumber)), "rp accepted"},
		{"once more", withMAC(t, rr(issuer, other.Certificate.SerialNumber)), "rp rejection certRevoked: the certificate is revoked already"},
		{"with what is revoked", withSignature(t, rr(issuer, signer.Certificate.SerialNumber), signer),
			"error rejection certRevoked: the signer's certificate is revoked"},
	} {
		t.Run(row.name, func(t *testing.T) { assert.Equal(t, row.want, outcome(send(t, ca, row.message))) })
	}
	assert.True(t, ca.Revoked(signer.Certificate.SerialNumber))
	assert.False(t, ca.Revoked(third.Certificate.SerialNumber))

	key := newKey(t)
	update := message(cmp.BodyKUR, cmp.CertReqMessages{signed(t, template(t, key, "leaf.example.org"), key)})
	assert.Equal(t, "error rejection certRevoked: the signer's certificate is revoked", outcome(send(t, ca, withSignature(t, update, other))))
}

func TestCA_generalMessages(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	stale, err := devca.New(devca.Config{})
	require.NoError(t, err)
	ask := func(asked ...cmp.InfoTypeAndValue) cmp.GeneralContent {
		answer := send(t, ca, withMAC(t, message(cmp.BodyGenM, cmp.GeneralContent(asked))))
		content, ok := answer.Body.Content.(cmp.GeneralContent)
		require.True(t, ok, outcome(answer))
		return content
	}
	assert.Empty(t, ask(cmp.InfoTypeAndValue{Type: asn1.ObjectIdentifier{1, 2, 3}}), "of what is not known nothing is said")

	value, ok := ask(cmp.InfoTypeAndValue{Type: cmp.OIDCACerts}).Value(cmp.OIDCACerts)
	require.True(t, ok)
	want, err := cmp.MarshalCACerts([][]byte{ca.Issuing().Raw, ca.Root().Raw})
	require.NoError(t, err)
	assert.Equal(t, want, value)

	value, ok = ask(cmp.InfoTypeAndValue{Type: cmp.OIDRootCACert, Value: ca.Root().Raw}).Value(cmp.OIDRootCAKeyUpdate)
	assert.True(t, ok)
	assert.Nil(t, value, "there is no update of the current root")

	value, ok = ask(cmp.InfoTypeAndValue{Type: cmp.OIDRootCACert, Value: stale.Root().Raw}).Value(cmp.OIDRootCAKeyUpdate)
	require.True(t, ok)
	want, err = cmp.RootCAKeyUpdate{NewWithNew: ca.Root().Raw}.Marshal()
	require.NoError(t, err)
	assert.Equal(t, want, value)
}
