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
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestCA_spoiltMessage_isAnsweredWithAnError(t *testing.T) {
	now := newClock()
	ca := newCA(devca.Config{Now: now.now})
	spoilt := func(spoil func(h *cmp.PKIHeader)) *cmp.PKIMessage {
		m := ir(t)
		spoil(&m.Header)
		return withMAC(t, m)
	}
	of := func(kind cmp.BodyType, content cmp.BodyContent) *cmp.PKIMessage {
		return withMAC(t, message(kind, content))
	}
	changed := withMAC(t, ir(t))
	changed.Header.TransactionID = cmp.NewNonce()
	for name, m := range map[string]*cmp.PKIMessage{
		"a message without protection":  ir(t),
		"a reference that is not known": spoilt(func(h *cmp.PKIHeader) { h.SenderKID = []byte("stranger") }),
		"another secret":                withSecret(t, ir(t), cmp.ProtectionPBMSHA256, "guessed"),
		"a header that was changed":     changed,
		"version 1":                     spoilt(func(h *cmp.PKIHeader) { h.PVNO = 1 }),
		"no transactionID":              spoilt(func(h *cmp.PKIHeader) { h.TransactionID = nil }),
		"a short senderNonce":           spoilt(func(h *cmp.PKIHeader) { h.SenderNonce = h.SenderNonce[:8] }),
		"a messageTime of ten minutes ago": spoilt(
			func(h *cmp.PKIHeader) { h.MessageTime = now.at.Add(-10 * time.Minute) }),
		"a messageTime in ten minutes": spoilt(
			func(h *cmp.PKIHeader) { h.MessageTime = now.at.Add(10 * time.Minute) }),
		"an update under the shared secret": withMAC(t, crmf(t, cmp.BodyKUR, newKey(), nil)),
		"an answer instead of a request":    of(cmp.BodyPKIConf, cmp.PKIConfirmContent{}),
		"genp instead of genm":              of(cmp.BodyGenP, cmp.GeneralContent{}),
		"a nested message":                  of(20, cmp.RawContent{0x30, 0}),
		"two revocations in one":            of(cmp.BodyRR, cmp.RevReqContent{{}, {}}),
	} {
		t.Run(name, func(t *testing.T) {
			answer := send(t, ca, m)
			checkText(t, outcome(answer))
			assert.Equal(t, m.Header.SenderNonce, answer.Header.RecipNonce)
			if m.Header.TransactionID != nil {
				assert.Equal(t, m.Header.TransactionID, answer.Header.TransactionID)
			}
		})
	}
	assert.Zero(t, ca.Stats().Issued)
}

// asking makes a request for a certificate from a template that is spoilt before it is signed.
func asking(t *testing.T, key crypto.Signer, spoil func(*cmp.CertTemplate)) *cmp.PKIMessage {
	return crmf(t, cmp.BodyIR, key, func(m *cmp.CertReqMsg) {
		if spoil != nil {
			spoil(&m.CertReq.CertTemplate)
		}
	})
}

// extending asks for more extensions, whose values are encoded here.
func extending(t *testing.T, key crypto.Signer, critical bool, id asn1.ObjectIdentifier, value any) *cmp.PKIMessage {
	der := fixture.Must(asn1.Marshal(value))
	return asking(t, key, func(template *cmp.CertTemplate) {
		template.Extensions = append(template.Extensions, pkix.Extension{Id: id, Critical: critical, Value: der})
	})
}

var (
	keyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	alternativeNames = asn1.ObjectIdentifier{2, 5, 29, 17}
	basicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	extKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

func rsaKey(bits int) *rsa.PrivateKey { return fixture.Must(rsa.GenerateKey(rand.Reader, bits)) }

func ecKey(curve elliptic.Curve) crypto.Signer {
	return fixture.Must(ecdsa.GenerateKey(curve, rand.Reader))
}

func edKey(t *testing.T) crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

func TestCA_spoiltRequest_isRejected(t *testing.T) {
	ca := newCA(devca.Config{})
	popo := func(key crypto.Signer, popo *cmp.ProofOfPossession) *cmp.PKIMessage {
		m := template(t, key)
		m.POPO = popo
		return message(cmp.BodyIR, cmp.CertReqMessages{m})
	}
	by := func(key, other crypto.Signer) *cmp.PKIMessage { // a proof with another key
		m := template(t, key)
		require.NoError(t, m.SignPOPO(other))
		return message(cmp.BodyIR, cmp.CertReqMessages{m})
	}
	broken := func(key crypto.Signer) *cmp.PKIMessage {
		parsed := csr(t, key)
		parsed.Raw[len(parsed.Raw)-1] ^= 1
		return p10cr(parsed.Raw)
	}
	// RFC 5280, 4.2.1.9: only a CA's certificate has a path length, 0 too.
	length := func(n int) *cmp.PKIMessage {
		return extending(t, newKey(), true, basicConstraints, struct {
			IsCA   bool `asn1:"optional"`
			Length int
		}{false, n})
	}
	extended := func(critical bool, id asn1.ObjectIdentifier, value any) *cmp.PKIMessage {
		return extending(t, newKey(), critical, id, value)
	}
	one, large := template(t, newKey()), fixture.OversizedRSA()
	for name, m := range map[string]*cmp.PKIMessage{
		"two requests":                                      message(cmp.BodyIR, cmp.CertReqMessages{one, one}),
		"no proof of possession":                            popo(newKey(), nil),
		"the word of an RA for the proof":                   popo(newKey(), &cmp.ProofOfPossession{RAVerified: true}),
		"a proof with another key":                          by(newKey(), newKey()),
		"a PKCS#10 request that was changed":                broken(newKey()),
		"not a PKCS#10 request":                             p10cr([]byte{0x30, 0}),
		"a short RSA key":                                   asking(t, rsaKey(1024), nil),
		"a long RSA key, whose proof is not even looked at": by(large, newKey()),
		"a long RSA key in a PKCS#10 request, whose proof is not even looked at": broken(large),
		"a key on a curve too small": p10cr(csr(t, ecKey(elliptic.P224())).Raw),
		"a CA certificate":           extended(true, basicConstraints, struct{ CA bool }{true}),
		"a path length of 0":         length(0),
		"a path length of 3":         length(3),
		"the right to sign certificates": extended(true, keyUsage,
			asn1.BitString{Bytes: []byte{0x84}, BitLength: 6}),
		"no key usage at all":                   extended(true, keyUsage, asn1.BitString{}),
		"key usages that cannot be read":        extended(true, keyUsage, 1),
		"basic constraints that cannot be read": extended(true, basicConstraints, []byte("x")),
		"a critical extension not known":        extended(true, asn1.ObjectIdentifier{1, 2, 3}, 1),
		"an extension twice":                    extended(false, alternativeNames, []int{}),
		"names that cannot be read": asking(t, newKey(), func(template *cmp.CertTemplate) {
			template.Extensions[0].Value = []byte{1}
		}),
		"no name at all": asking(t, newKey(), func(template *cmp.CertTemplate) {
			template.Subject, template.Extensions = nil, nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			answer := ask(t, ca, m)
			checkText(t, outcome(answer))
			assert.Nil(t, answer.Body.Content.(*cmp.CertRepMessage).Response[0].CertifiedKeyPair)
			_, err := cmp.NewMACKeys([]byte(devca.DefaultSecret)).Verify(answer)
			assert.NoError(t, err, "a rejection is as protected as a certificate")
		})
	}
	assert.Zero(t, ca.Stats().Issued)
}

func TestCA_spoiltSigner_isRefused(t *testing.T) {
	now := newClock()
	ca := newCA(devca.Config{Now: now.now, Validity: time.Minute})
	signer, stranger := enrolled(t, ca), enrolled(t, newCA(devca.Config{}))
	kur := func(spoil func(*cmp.CertReqMsg)) *cmp.PKIMessage { return crmf(t, cmp.BodyKUR, newKey(), spoil) }
	sent := func(spoil func(m *cmp.PKIMessage)) *cmp.PKIMessage {
		m := withSignature(t, kur(nil), signer)
		spoil(m)
		return m
	}
	of := func(issuer []byte, serial *big.Int) *cmp.PKIMessage {
		return withSignature(t, kur(func(m *cmp.CertReqMsg) {
			id := cmp.CertID{Issuer: cmp.DirectoryName(issuer), SerialNumber: serial}
			require.NoError(t, m.CertReq.AddOldCertID(id))
		}), signer)
	}
	algorithm := func(oid ...int) *cmp.PKIMessage { // RFC 9483, 3.5: another fault than a protection that is wrong
		return sent(func(m *cmp.PKIMessage) { m.Header.ProtectionAlg = &cmp.AlgorithmIdentifier{Algorithm: oid} })
	}
	for name, m := range map[string]*cmp.PKIMessage{
		"a certificate of another CA by the same name": withSignature(t, kur(nil), stranger),
		"not a certificate": sent(
			func(m *cmp.PKIMessage) { m.ExtraCerts = [][]byte{{0x30, 0}} }),
		"no certificate of the signer": sent(func(m *cmp.PKIMessage) { m.ExtraCerts = nil }),
		"another sender than the signer": sent(func(m *cmp.PKIMessage) {
			m.Header.Sender = cmp.DirectoryName(ca.Issuing().RawSubject)
			require.NoError(t, cmp.ProtectSignature(m, signer.Key))
		}),
		"a signature by another key": withSignature(t, kur(nil),
			&cmp.Signer{Key: stranger.Key, Certificate: signer.Certificate}),
		"an update of another certificate":             of(ca.Issuing().RawSubject, big.NewInt(1)),
		"an update of a certificate by another issuer": of(nil, signer.Certificate.SerialNumber),
		"an update to another subject": withSignature(t, kur(func(m *cmp.CertReqMsg) {
			m.CertReq.CertTemplate.Subject = ca.Root().RawSubject
		}), signer),
		"an algorithm that is not known": algorithm(1, 2, 3, 4),
		"DHBasedMac":                     algorithm(1, 2, 840, 113533, 7, 66, 30),
		"PBM without parameters":         algorithm(1, 2, 840, 113533, 7, 66, 13),
		"ECDSA with SHA-1":               algorithm(1, 2, 840, 10045, 4, 1),
	} {
		t.Run(name, func(t *testing.T) {
			answer := send(t, ca, m)
			checkText(t, outcome(answer))
			if !m.MACProtected() {
				assert.NoError(t, cmp.VerifySignature(answer, ca.Issuing().PublicKey),
					"errors to signed messages are signed")
			}
		})
	}
	now.at = now.at.Add(2 * time.Minute)
	answer := send(t, ca, withSignature(t, kur(nil), signer))
	assert.Equal(t,
		"error rejection signerNotTrusted: the signer's certificate is valid from "+
			signer.Certificate.NotBefore.String()+
			" to "+signer.Certificate.NotAfter.String()+", which is not now", outcome(answer))
}

func TestCA_looserMessagesOfTheONAPServer_areTaken(t *testing.T) {
	ca := newCA(devca.Config{})
	// the value is left out
	implicitConfirm := cmp.InfoTypeAndValue{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 13}}
	loose := func(kind cmp.BodyType, key crypto.Signer) *cmp.PKIMessage {
		m := crmf(t, kind, key, func(m *cmp.CertReqMsg) { m.CertReq.CertReqID = 1850296324 })
		m.Header.GeneralInfo = []cmp.InfoTypeAndValue{implicitConfirm}
		return m
	}
	key, next := newKey(), newKey()
	answer := send(t, ca, withSecret(t, loose(cmp.BodyIR, key), cmp.ProtectionPBMSHA1, devca.DefaultSecret))
	assert.EqualValues(t, 1850296324, answer.Body.Content.(*cmp.CertRepMessage).Response[0].CertReqID)
	assert.True(t, answer.Header.ImplicitConfirm())
	used, err := cmp.NewMACKeys([]byte(devca.DefaultSecret)).Verify(answer)
	require.NoError(t, err)
	assert.Equal(t, cmp.ProtectionPBMSHA1, used.Protection)

	kur := loose(cmp.BodyKUR, next)
	kur.SetSigner(granted(t, answer), nil)
	kur.Header.SenderKID = nil
	require.NoError(t, cmp.ProtectSignature(kur, key))
	answer = send(t, ca, kur)
	assert.Equal(t, next.Public(), granted(t, answer).PublicKey)
	assert.NoError(t, cmp.VerifySignature(answer, ca.Issuing().PublicKey))
	assert.Equal(t, [][]byte{ca.Issuing().Raw, ca.Root().Raw}, answer.ExtraCerts)
}

func TestCA_certificate_isAsAskedFor(t *testing.T) {
	now := newClock()
	ca := newCA(devca.Config{Now: now.now, Validity: 90 * time.Second})
	usage := fixture.Must(asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1}))
	serverAuth := fixture.Must(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}}))
	key := newKey()
	answer := ask(t, ca, asking(t, key, func(template *cmp.CertTemplate) {
		template.Extensions = append(template.Extensions, pkix.Extension{Id: keyUsage, Critical: true, Value: usage},
			pkix.Extension{Id: extKeyUsage, Value: serverAuth})
	}))
	assert.Equal(t, "ip accepted", outcome(answer))
	certificate := granted(t, answer)
	assert.Equal(t, key.Public(), certificate.PublicKey)
	assert.Equal(t, csr(t, key).RawSubject, certificate.RawSubject)
	assert.Equal(t, []string{leaf, "alias.example.org"}, certificate.DNSNames)
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

	plain := granted(t, ask(t, ca, extending(t, newKey(), true, basicConstraints, struct{}{})))
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, plain.ExtKeyUsage)
}

func TestCA_whatIsNotGranted_isSaid(t *testing.T) {
	ca := newCA(devca.Config{})
	answer := ask(t, ca, extending(t, newKey(), false, asn1.ObjectIdentifier{1, 2, 3}, 1))
	assert.Equal(t, "ip grantedWithMods: the extension 1.2.3 is left out", outcome(answer))
	answer = ask(t, ca, asking(t, newKey(),
		func(template *cmp.CertTemplate) { template.Validity = &cmp.OptionalValidity{} }))
	assert.Equal(t, "ip grantedWithMods: the validity is this CA's, not the one asked for", outcome(answer))
}

func TestCA_emptySubject(t *testing.T) {
	ca := newCA(devca.Config{})
	certificate := granted(t, ask(t, ca, asking(t, newKey(),
		func(template *cmp.CertTemplate) { template.Subject = nil })))
	assert.Empty(t, certificate.Subject.String())
	assert.Equal(t, []string{leaf, "alias.example.org"}, certificate.DNSNames)
	for _, extension := range certificate.Extensions {
		assert.True(t, extension.Critical || !extension.Id.Equal(alternativeNames), "RFC 5280, 4.2.1.6")
	}
	signer := enrolled(t, ca)
	kur := crmf(t, cmp.BodyKUR, newKey(), func(m *cmp.CertReqMsg) { m.CertReq.CertTemplate.Subject = nil })
	certificate = granted(t, send(t, ca, withSignature(t, kur, signer)))
	assert.Equal(t, signer.Certificate.RawSubject, certificate.RawSubject, "an update keeps the old one")
}

func TestCA_certificate_isReadableAfter2049(t *testing.T) {
	now := &clock{time.Date(2049, 12, 31, 23, 59, 30, 0, time.UTC)}
	certificate := enrolled(t, newCA(devca.Config{Now: now.now, Validity: time.Minute})).Certificate
	assert.Equal(t, now.at, certificate.NotBefore)
	assert.Equal(t, now.at.Add(time.Minute), certificate.NotAfter)
}

// RFC 8813, 3 and RFC 8410, 5: a key that only signs enciphers nothing. What is not asked for is given as far as the
// key can have it.
func TestCA_keyUsages(t *testing.T) {
	const sign, commit = x509.KeyUsageDigitalSignature, x509.KeyUsageContentCommitment
	const encipher, agree = x509.KeyUsageKeyEncipherment, x509.KeyUsageKeyAgreement
	lenient, strict := newCA(devca.Config{}), newCA(devca.Config{StrictKeyUsage: true})
	bits := func(length int, bytes ...byte) asn1.BitString { return asn1.BitString{Bytes: bytes, BitLength: length} }
	for name, row := range map[string]struct {
		key   crypto.Signer
		asked asn1.BitString // empty: nothing is asked for
		want  x509.KeyUsage  // 0: refused
		left  string         // what is left out
	}{
		"RSA":                  {rsaKey(2048), bits(3, 0xe0), sign | commit | encipher, ""},
		"RSA, nothing asked":   {rsaKey(2048), bits(0), sign | commit | encipher, ""},
		"ECDSA":                {newKey(), bits(3, 0xe0), sign | commit, "keyEncipherment"},
		"ECDSA, fit":           {ecKey(elliptic.P384()), bits(2, 0xc0), sign | commit, ""},
		"ECDSA, nothing asked": {ecKey(elliptic.P521()), bits(0), sign | commit, ""},
		"ECDSA, key agreement": {newKey(), bits(5, 0x88), sign | agree, ""},
		"ECDSA, data encipherment and decipherOnly": {newKey(), bits(9, 0x98, 0x80),
			sign | agree | x509.KeyUsageDecipherOnly,
			"dataEncipherment"},
		"ECDSA, only what it cannot": {newKey(), bits(3, 0x20), 0, "keyEncipherment"},
		"Ed25519":                    {edKey(t), bits(5, 0xe8), sign | commit, "keyEncipherment, keyAgreement"},
	} {
		t.Run(name, func(t *testing.T) {
			m := asking(t, row.key, nil)
			if row.asked.BitLength > 0 {
				m = extending(t, row.key, true, keyUsage, row.asked)
			}
			refused := "ip rejection badCertTemplate: keyUsage asks for " + row.left +
				", which a key of this kind cannot do"
			lenientWant, strictWant := "ip accepted", "ip accepted"
			if row.left != "" {
				lenientWant, strictWant = "ip grantedWithMods: the key usage "+row.left+
					" is left out, which a key of this kind cannot do", refused
			}
			if row.want == 0 {
				lenientWant = refused
			}
			for ca, want := range map[*devca.CA]string{lenient: lenientWant, strict: strictWant} {
				answer := ask(t, ca, m)
				require.Equal(t, want, outcome(answer))
				if want != refused {
					assert.Equal(t, row.want, granted(t, answer).KeyUsage)
					assert.Equal(t, row.key.Public(), granted(t, answer).PublicKey)
				}
			}
		})
	}
}
