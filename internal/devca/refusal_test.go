package devca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	testca "github.com/certfetcher/certfetcher/test/ca"
)

func TestCA_spoiltMessage_isAnsweredWithAnError(t *testing.T) {
	now := newClock()
	ca, err := devca.New(devca.Config{Now: now.now})
	require.NoError(t, err)
	for _, row := range []struct {
		name    string
		message func(t *testing.T) *cmp.PKIMessage
		want    string
	}{
		{"a message without protection", func(t *testing.T) *cmp.PKIMessage { return ir(t) },
			"error rejection badMessageCheck: the message is not protected"},
		{"a reference that nobody knows", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			m.Header.SenderKID = []byte("somebody")
			return withMAC(t, m)
		}, `error rejection badMessageCheck: no shared secret is known by the reference "somebody" in senderKID`},
		{"another secret", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			mac, err := cmp.NewMAC(cmp.ProtectionPBMSHA256)
			require.NoError(t, err)
			require.NoError(t, cmp.NewMACKeys([]byte("guessed")).Protect(m, mac))
			return m
		}, "error rejection badMessageCheck: the protection is wrong: MAC does not match: the shared secrets differ or the message was changed"},
		{"a header that was changed", func(t *testing.T) *cmp.PKIMessage {
			m := withMAC(t, ir(t))
			m.Header.TransactionID = cmp.NewNonce()
			return m
		}, "error rejection badMessageCheck: the protection is wrong: MAC does not match: the shared secrets differ or the message was changed"},
		{"version 1", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			m.Header.PVNO = 1
			return withMAC(t, m)
		}, "error rejection unsupportedVersion: pvno is 1, want 2 or 3"},
		{"no transactionID", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			m.Header.TransactionID = nil
			return withMAC(t, m)
		}, "error rejection badDataFormat: transactionID is missing"},
		{"a short senderNonce", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			m.Header.SenderNonce = m.Header.SenderNonce[:8]
			return withMAC(t, m)
		}, "error rejection badSenderNonce: senderNonce has 8 bytes, want 16 or more"},
		{"a messageTime of ten minutes ago", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			m.Header.MessageTime = now.at.Add(-10 * time.Minute)
			return withMAC(t, m)
		}, "error rejection badTime: messageTime is 10m0s from the time here, want at most 5m0s"},
		{"a messageTime in ten minutes", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			m.Header.MessageTime = now.at.Add(10 * time.Minute)
			return withMAC(t, m)
		}, "error rejection badTime: messageTime is 10m0s from the time here, want at most 5m0s"},
		{"an update under the shared secret", func(t *testing.T) *cmp.PKIMessage {
			m := ir(t)
			m.Body.Type = cmp.BodyKUR
			return withMAC(t, m)
		}, "error rejection wrongIntegrity: kur is protected by a shared secret, want a signature by the key of the certificate to update"},
		{"an answer instead of a request", func(t *testing.T) *cmp.PKIMessage {
			return withMAC(t, message(cmp.BodyPKIConf, cmp.PKIConfirmContent{}))
		}, "error rejection badRequest: a message of kind pkiconf is nothing that can be answered here"},
		{"genp instead of genm", func(t *testing.T) *cmp.PKIMessage {
			return withMAC(t, message(cmp.BodyGenP, cmp.GeneralContent{}))
		}, "error rejection badRequest: a message of kind genp is nothing that can be answered here"},
		{"a nested message", func(t *testing.T) *cmp.PKIMessage {
			return withMAC(t, message(20, cmp.RawContent{0x30, 0}))
		}, "error rejection badRequest: a message of kind nested is nothing that can be answered here"},
		{"two revocations in one", func(t *testing.T) *cmp.PKIMessage {
			return withMAC(t, message(cmp.BodyRR, cmp.RevReqContent{{}, {}}))
		}, "error rejection badRequest: rr names 2 certificates, want one"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := row.message(t)
			answer := send(t, ca, m)
			assert.Equal(t, row.want, outcome(answer))
			assert.Equal(t, m.Header.SenderNonce, answer.Header.RecipNonce)
			if m.Header.TransactionID != nil {
				assert.Equal(t, m.Header.TransactionID, answer.Header.TransactionID)
			}
		})
	}
	assert.Zero(t, ca.Stats().Issued)
}

// change makes a request for a certificate from a template that is spoilt before it is signed.
func change(t *testing.T, key crypto.Signer, spoil func(*cmp.CertTemplate)) *cmp.PKIMessage {
	m := template(t, key, "leaf.example.org")
	spoil(&m.CertReq.CertTemplate)
	return withMAC(t, message(cmp.BodyIR, cmp.CertReqMessages{signed(t, m, key)}))
}

func extend(t *testing.T, id asn1.ObjectIdentifier, critical bool, value any) *cmp.PKIMessage {
	der, err := asn1.Marshal(value)
	require.NoError(t, err)
	return change(t, newKey(t), func(template *cmp.CertTemplate) {
		template.Extensions = append(template.Extensions, pkix.Extension{Id: id, Critical: critical, Value: der})
	})
}

const wantedKeys = "the key is of no kind that is certified here: want RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519"

func TestCA_spoiltRequest_isRejected(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	for _, row := range []struct {
		name    string
		message func(t *testing.T) *cmp.PKIMessage
		want    string
	}{
		{"two requests", func(t *testing.T) *cmp.PKIMessage {
			key := newKey(t)
			one := signed(t, template(t, key, "leaf.example.org"), key)
			return withMAC(t, message(cmp.BodyIR, cmp.CertReqMessages{one, one}))
		}, "ip rejection badRequest: the message has 2 requests, want one"},
		{"no proof of possession", func(t *testing.T) *cmp.PKIMessage {
			return withMAC(t, message(cmp.BodyCR, cmp.CertReqMessages{template(t, newKey(t), "leaf.example.org")}))
		}, "cp rejection badPOP: proof of possession is not a signature"},
		{"the word of a registration authority for the proof", func(t *testing.T) *cmp.PKIMessage {
			m := template(t, newKey(t), "leaf.example.org")
			m.POPO = &cmp.ProofOfPossession{RAVerified: true}
			return withMAC(t, message(cmp.BodyIR, cmp.CertReqMessages{m}))
		}, "ip rejection badPOP: proof of possession is not a signature"},
		{"a proof with another key", func(t *testing.T) *cmp.PKIMessage {
			return withMAC(t, message(cmp.BodyIR, cmp.CertReqMessages{signed(t, template(t, newKey(t), "leaf.example.org"), newKey(t))}))
		}, "ip rejection badPOP: verifying proof of possession: x509: ECDSA verification failure"},
		{"a PKCS#10 request that was changed", func(t *testing.T) *cmp.PKIMessage {
			parsed := csr(t, newKey(t), "leaf.example.org")
			parsed.Raw[len(parsed.Raw)-1] ^= 1
			return withMAC(t, message(cmp.BodyP10CR, cmp.CertificationRequest(parsed.Raw)))
		}, "cp rejection badPOP: verifying the signature of the PKCS#10 request: x509: ECDSA verification failure"},
		{"something else than a PKCS#10 request", func(t *testing.T) *cmp.PKIMessage {
			return withMAC(t, message(cmp.BodyP10CR, cmp.CertificationRequest{0x30, 0}))
		}, "cp rejection badDataFormat: reading the PKCS#10 request: asn1: syntax error: sequence truncated"},
		{"a short RSA key", func(t *testing.T) *cmp.PKIMessage {
			key, err := rsa.GenerateKey(rand.Reader, 1024)
			require.NoError(t, err)
			return change(t, key, func(*cmp.CertTemplate) {})
		}, "ip rejection badAlg: " + wantedKeys},
		{"a long RSA key, whose proof is not even looked at", func(t *testing.T) *cmp.PKIMessage {
			key := testca.OversizedRSA()
			return withMAC(t, message(cmp.BodyIR, cmp.CertReqMessages{signed(t, template(t, key, "leaf.example.org"), newKey(t))}))
		}, "ip rejection badAlg: " + wantedKeys},
		{"a long RSA key in a PKCS#10 request, whose proof is not even looked at", func(t *testing.T) *cmp.PKIMessage {
			parsed := csr(t, testca.OversizedRSA(), "leaf.example.org")
			parsed.Raw[len(parsed.Raw)-1] ^= 1
			return withMAC(t, message(cmp.BodyP10CR, cmp.CertificationRequest(parsed.Raw)))
		}, "cp rejection badAlg: " + wantedKeys},
		{"a key on a curve too small", func(t *testing.T) *cmp.PKIMessage {
			key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			require.NoError(t, err)
			return withMAC(t, message(cmp.BodyP10CR, cmp.CertificationRequest(csr(t, key, "leaf.example.org").Raw)))
		}, "cp rejection badAlg: " + wantedKeys},
		{"a CA certificate", func(t *testing.T) *cmp.PKIMessage {
			return extend(t, asn1.ObjectIdentifier{2, 5, 29, 19}, true, struct{ CA bool }{true})
		}, "ip rejection badCertTemplate: basicConstraints asks for a CA certificate, want one for an end entity"},
		{"the right to sign certificates", func(t *testing.T) *cmp.PKIMessage {
			return extend(t, asn1.ObjectIdentifier{2, 5, 29, 15}, true, asn1.BitString{Bytes: []byte{0x84}, BitLength: 6})
		}, "ip rejection badCertTemplate: keyUsage asks for the signing of certificates or CRLs, which is for authorities"},
		{"key usages that cannot be read", func(t *testing.T) *cmp.PKIMessage {
			return extend(t, asn1.ObjectIdentifier{2, 5, 29, 15}, true, 1)
		}, "ip rejection badCertTemplate: keyUsage is not a BIT STRING"},
		{"basic constraints that cannot be read", func(t *testing.T) *cmp.PKIMessage {
			return extend(t, asn1.ObjectIdentifier{2, 5, 29, 19}, true, []byte("x"))
		}, "ip rejection badCertTemplate: basicConstraints cannot be read"},
		{"a critical extension that nobody knows", func(t *testing.T) *cmp.PKIMessage {
			return extend(t, asn1.ObjectIdentifier{1, 2, 3}, true, 1)
		}, "ip rejection unacceptedExtension: extension 1.2.3 is critical and not known here"},
		{"an extension twice", func(t *testing.T) *cmp.PKIMessage {
			return extend(t, asn1.ObjectIdentifier{2, 5, 29, 17}, false, []int{})
		}, "ip rejection badCertTemplate: extension 2.5.29.17 is asked for twice"},
		{"names that cannot be read", func(t *testing.T) *cmp.PKIMessage {
			return change(t, newKey(t), func(template *cmp.CertTemplate) { template.Extensions[0].Value = []byte{1} })
		}, "ip rejection badCertTemplate: the certificate asked for would not be readable: x509: invalid subject alternative names"},
		{"no name at all", func(t *testing.T) *cmp.PKIMessage {
			return change(t, newKey(t), func(template *cmp.CertTemplate) { template.Subject, template.Extensions = nil, nil })
		}, "ip rejection badCertTemplate: there is neither a subject nor a subject alternative name"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := row.message(t)
			answer := send(t, ca, m)
			assert.Equal(t, row.want, outcome(answer))
			assert.Nil(t, answer.Body.Content.(*cmp.CertRepMessage).Response[0].CertifiedKeyPair)
			_, err := cmp.NewMACKeys([]byte(devca.DefaultSecret)).Verify(answer)
			assert.NoError(t, err, "a rejection is as protected as a certificate")
		})
	}
	assert.Zero(t, ca.Stats().Issued)
}

func TestCA_keys_ofEveryKindAreCertified(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for _, key := range []crypto.Signer{rsaKey, p384, p521, edKey} {
		certificate := granted(t, send(t, ca, change(t, key, func(*cmp.CertTemplate) {})))
		assert.Equal(t, key.Public(), certificate.PublicKey)
	}
}

func TestCA_spoiltSigner_isRefused(t *testing.T) {
	now := newClock()
	ca, err := devca.New(devca.Config{Now: now.now, Validity: time.Minute})
	require.NoError(t, err)
	other, err := devca.New(devca.Config{})
	require.NoError(t, err)
	signer, stranger := enrolled(t, ca), enrolled(t, other)
	kur := func(name string, change func(*cmp.CertReqMsg)) *cmp.PKIMessage {
		key := newKey(t)
		m := template(t, key, name)
		if change != nil {
			change(&m)
		}
		return message(cmp.BodyKUR, cmp.CertReqMessages{signed(t, m, key)})
	}
	for _, row := range []struct {
		name    string
		message func() *cmp.PKIMessage
		want    string
	}{
		{"a certificate of another CA by the same name", func() *cmp.PKIMessage {
			return withSignature(t, kur("leaf.example.org", nil), stranger)
		}, "error rejection signerNotTrusted: the signer's certificate was not issued by this CA since it was started"},
		{"something else than a certificate", func() *cmp.PKIMessage {
			m := withSignature(t, kur("leaf.example.org", nil), signer)
			m.ExtraCerts = [][]byte{{0x30, 0}}
			return m
		}, "error rejection badMessageCheck: the signer's certificate cannot be read: x509: malformed tbs certificate"},
		{"no certificate of the signer", func() *cmp.PKIMessage {
			m := withSignature(t, kur("leaf.example.org", nil), signer)
			m.ExtraCerts = nil
			return m
		}, "error rejection badMessageCheck: the message is signed, but the signer's certificate is not the first of extraCerts"},
		{"another sender than the signer", func() *cmp.PKIMessage {
			m := kur("leaf.example.org", nil)
			m.SetSigner(signer.Certificate, nil)
			m.Header.Sender = cmp.DirectoryName(ca.Issuing().RawSubject)
			require.NoError(t, cmp.ProtectSignature(m, signer.Key))
			return m
		}, `error rejection badMessageCheck: the sender is "O=DEVELOPMENT ONLY,CN=DEVELOPMENT ONLY Issuing CA", but the message is signed by "O=Example,CN=leaf.example.org"`},
		{"a signature by another key", func() *cmp.PKIMessage {
			return withSignature(t, kur("leaf.example.org", nil), &cmp.Signer{Key: stranger.Key, Certificate: signer.Certificate})
		}, "error rejection badMessageCheck: the protection is wrong: x509: ECDSA verification failure"},
		{"an update of another certificate", func() *cmp.PKIMessage {
			return withSignature(t, kur("leaf.example.org", func(m *cmp.CertReqMsg) {
				require.NoError(t, m.CertReq.AddOldCertID(cmp.CertID{Issuer: cmp.DirectoryName(ca.Issuing().RawSubject), SerialNumber: big.NewInt(1)}))
			}), signer)
		}, "kup rejection badCertId: oldCertID is not the certificate that the message is signed by"},
		{"an update of a certificate by another issuer", func() *cmp.PKIMessage {
			return withSignature(t, kur("leaf.example.org", func(m *cmp.CertReqMsg) {
				require.NoError(t, m.CertReq.AddOldCertID(cmp.CertID{Issuer: cmp.DirectoryName(nil), SerialNumber: signer.Certificate.SerialNumber}))
			}), signer)
		}, "kup rejection badCertId: oldCertID is not the certificate that the message is signed by"},
		{"an update to another subject", func() *cmp.PKIMessage {
			return withSignature(t, kur("other.example.org", nil), signer)
		}, `kup rejection badCertTemplate: the subject "O=Example,CN=other.example.org" is not "O=Example,CN=leaf.example.org", which the update is for`},
	} {
		t.Run(row.name, func(t *testing.T) {
			answer := send(t, ca, row.message())
			assert.Equal(t, row.want, outcome(answer))
			assert.NoError(t, cmp.VerifySignature(answer, ca.Issuing().PublicKey), "errors to signed messages are signed")
		})
	}
	now.at = now.at.Add(2 * time.Minute)
	answer := send(t, ca, withSignature(t, kur("leaf.example.org", nil), signer))
	assert.Equal(t, "error rejection signerNotTrusted: the signer's certificate is valid from "+signer.Certificate.NotBefore.String()+
		" to "+signer.Certificate.NotAfter.String()+", which is not now", outcome(answer))
}

func TestCA_looserMessagesOfTheONAPServer_areTaken(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	implicitConfirm := cmp.InfoTypeAndValue{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 13}} // the value is left out

	key := newKey(t)
	m := template(t, key, "leaf.example.org")
	m.CertReq.CertReqID = 1850296324
	ir := message(cmp.BodyIR, cmp.CertReqMessages{signed(t, m, key)})
	ir.Header.GeneralInfo = []cmp.InfoTypeAndValue{implicitConfirm}
	mac, err := cmp.NewMAC(cmp.ProtectionPBMSHA1)
	require.NoError(t, err)
	require.NoError(t, cmp.NewMACKeys([]byte(devca.DefaultSecret)).Protect(ir, mac))
	answer := send(t, ca, ir)
	old := granted(t, answer)
	assert.EqualValues(t, 1850296324, answer.Body.Content.(*cmp.CertRepMessage).Response[0].CertReqID)
	assert.True(t, answer.Header.ImplicitConfirm())
	used, err := cmp.NewMACKeys([]byte(devca.DefaultSecret)).Verify(answer)
	require.NoError(t, err)
	assert.Equal(t, cmp.ProtectionPBMSHA1, used.Protection)

	newKey := newKey(t)
	m = template(t, newKey, "leaf.example.org")
	m.CertReq.CertReqID = 77
	kur := message(cmp.BodyKUR, cmp.CertReqMessages{signed(t, m, newKey)})
	kur.Header.GeneralInfo = []cmp.InfoTypeAndValue{implicitConfirm}
	kur.SetSigner(old, nil)
	kur.Header.SenderKID = nil
	require.NoError(t, cmp.ProtectSignature(kur, key))
	answer = send(t, ca, kur)
	assert.Equal(t, newKey.Public(), granted(t, answer).PublicKey)
	assert.NoError(t, cmp.VerifySignature(answer, ca.Issuing().PublicKey))
	assert.Equal(t, [][]byte{ca.Issuing().Raw, ca.Root().Raw}, answer.ExtraCerts)
}

func TestCA_certificate_isAsAskedFor(t *testing.T) {
	now := newClock()
	ca, err := devca.New(devca.Config{Now: now.now, Validity: 90 * time.Second})
	require.NoError(t, err)
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
	require.NoError(t, err)
	extUsage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}})
	require.NoError(t, err)
	key := newKey(t)
	answer := send(t, ca, change(t, key, func(template *cmp.CertTemplate) {
		template.Extensions = append(template.Extensions,
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: usage},
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: extUsage})
	}))
	assert.Equal(t, "ip accepted", outcome(answer))
	certificate := granted(t, answer)
	assert.Equal(t, key.Public(), certificate.PublicKey)
	assert.Equal(t, "CN=leaf.example.org,O=Example", certificate.Subject.String())
	assert.Equal(t, []string{"leaf.example.org", "alias.example.org"}, certificate.DNSNames)
	assert.Equal(t, x509.KeyUsageDigitalSignature, certificate.KeyUsage)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, certificate.ExtKeyUsage)
	assert.Equal(t, ca.Issuing().SubjectKeyId, certificate.AuthorityKeyId)
	assert.Len(t, certificate.SubjectKeyId, 20)
	assert.Equal(t, now.at.UTC(), certificate.NotBefore)
	assert.Equal(t, now.at.Add(90*time.Second).UTC(), certificate.NotAfter)
	assert.NoError(t, certificate.CheckSignatureFrom(ca.Issuing()))
	assert.NoError(t, ca.Issuing().CheckSignatureFrom(ca.Root()))
	for _, authority := range []*x509.Certificate{ca.Root(), ca.Issuing()} {
		assert.Contains(t, authority.Subject.CommonName, "DEVELOPMENT ONLY")
	}
}

func TestCA_whatIsNotGranted_isSaid(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	answer := send(t, ca, extend(t, asn1.ObjectIdentifier{1, 2, 3}, false, 1))
	assert.Equal(t, "ip grantedWithMods: the extension 1.2.3 is left out", outcome(answer))
	certificate := granted(t, answer)
	assert.Equal(t, x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment, certificate.KeyUsage,
		"the ONAP server's usages where none are asked for, as far as the key has them")
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, certificate.ExtKeyUsage)

	answer = send(t, ca, change(t, newKey(t), func(template *cmp.CertTemplate) { template.Validity = &cmp.OptionalValidity{} }))
	assert.Equal(t, "ip grantedWithMods: the validity is this CA's, not the one asked for", outcome(answer))
}

func TestCA_emptySubject_makesTheNamesCritical(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	certificate := granted(t, send(t, ca, change(t, newKey(t), func(template *cmp.CertTemplate) { template.Subject = nil })))
	assert.Empty(t, certificate.Subject.String())
	assert.Equal(t, []string{"leaf.example.org", "alias.example.org"}, certificate.DNSNames)
	for _, extension := range certificate.Extensions {
		if extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			assert.True(t, extension.Critical)
		}
	}
}

func TestCA_updateWithoutSubject_keepsTheOldOne(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	signer, key := enrolled(t, ca), newKey(t)
	m := template(t, key, "leaf.example.org")
	m.CertReq.CertTemplate.Subject = nil
	kur := message(cmp.BodyKUR, cmp.CertReqMessages{signed(t, m, key)})
	certificate := granted(t, send(t, ca, withSignature(t, kur, signer)))
	assert.Equal(t, signer.Certificate.RawSubject, certificate.RawSubject)
}

func TestCA_certificate_isReadableAfter2049(t *testing.T) {
	now := &clock{time.Date(2049, 12, 31, 23, 59, 30, 0, time.UTC)}
	ca, err := devca.New(devca.Config{Now: now.now, Validity: time.Minute})
	require.NoError(t, err)
	certificate := enrolled(t, ca).Certificate
	assert.Equal(t, now.at, certificate.NotBefore)
	assert.Equal(t, now.at.Add(time.Minute), certificate.NotAfter)
}
