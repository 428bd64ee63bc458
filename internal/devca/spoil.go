package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// spoil is a fault that makes one thing of a good answer wrong, which one check of the client must
// find. What is not nil is called.
type spoil struct {
	// of every answer, to whatever message
	header  func(h *cmp.PKIHeader)
	message func(m *cmp.PKIMessage) // once it is protected
	sent    func(der []byte) []byte // of answers with a certificate, as the next two
	answer  func(b *cmp.PKIBody)
	leaf    func(l *leaf)
}

// leaf is a certificate before it is signed.
type leaf struct {
	certificate *x509.Certificate
	key         any // public
	issuer      *x509.Certificate
	signer      *ecdsa.PrivateKey
	ca          *CA
}

// spoils are the faults by their words; the usage of devca describes them.
var spoils = map[string]spoil{
	"wrong-version":        {header: func(h *cmp.PKIHeader) { h.PVNO = 1 }},
	"wrong-time":           {header: func(h *cmp.PKIHeader) { h.MessageTime = h.MessageTime.Add(-time.Hour) }},
	"wrong-transaction-id": {header: func(h *cmp.PKIHeader) { h.TransactionID = cmp.NewNonce() }},
	"wrong-nonce":          {header: func(h *cmp.PKIHeader) { h.RecipNonce = cmp.NewNonce() }},
	"wrong-protection":     {message: func(m *cmp.PKIMessage) { m.Protection[len(m.Protection)-1] ^= 1 }},
	"no-protection": {message: func(m *cmp.PKIMessage) {
		m.Protection, m.Header.ProtectionAlg = nil, nil
		m.RawHeader, m.RawBody = nil, nil
	}},
	"malformed": {sent: func(der []byte) []byte { return append(der, 0) }},
	"wrong-kind": {answer: func(b *cmp.PKIBody) {
		others := map[cmp.BodyType]cmp.BodyType{cmp.BodyIP: cmp.BodyCP, cmp.BodyCP: cmp.BodyIP, cmp.BodyKUP: cmp.BodyIP}
		b.Type = others[b.Type]
	}},
	"wrong-request-id": {answer: func(b *cmp.PKIBody) { responses(b)[0].CertReqID += 7 }},
	"no-certificate":   {answer: func(b *cmp.PKIBody) { responses(b)[0].CertifiedKeyPair = nil }},
	"two-certificates": {answer: func(b *cmp.PKIBody) {
		b.Content.(*cmp.CertRepMessage).Response = append(responses(b), responses(b)[0])
	}},
	"wrong-key":     {leaf: func(l *leaf) { l.key = l.ca.issuing.PublicKey }},
	"wrong-subject": {leaf: func(l *leaf) { l.certificate.RawSubject = l.ca.root.RawSubject }},
	"other-names": {leaf: func(l *leaf) {
		for i, extension := range l.certificate.ExtraExtensions {
			if extension.Id.Equal(oidSubjectAltName) {
				l.certificate.ExtraExtensions[i].Value = otherNames
			}
		}
	}},
	"authority": {leaf: func(l *leaf) { l.certificate.IsCA, l.certificate.BasicConstraintsValid = true, true }},
	"expired": {leaf: func(l *leaf) {
		l.certificate.NotAfter = l.ca.config.Now().Add(-time.Hour)
		l.certificate.NotBefore = l.certificate.NotAfter.Add(-time.Hour)
	}},
	"not-yet-valid": {leaf: func(l *leaf) { l.certificate.NotBefore = l.ca.config.Now().Add(30 * time.Minute) }},
	"wrong-signature": {leaf: func(l *leaf) { // by another key under the issuer's name
		impostor := *l.issuer
		l.signer, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		impostor.PublicKey = l.signer.Public()
		l.issuer = &impostor
	}},
}

// otherNames is a subjectAltName with the DNS name other.example.
var otherNames, _ = asn1.Marshal([]asn1.RawValue{
	{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("other.example")},
})

func responses(b *cmp.PKIBody) []cmp.CertResponse { return b.Content.(*cmp.CertRepMessage).Response }

// spoiled are those of the faults.
func (f Faults) spoiled(apply func(spoil)) {
	for _, word := range f.Spoils {
		apply(spoils[word])
	}
}
