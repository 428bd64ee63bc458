package ejbca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// answers gives the kind of answer to each kind of request for a certificate.
var answers = map[cmp.BodyType]cmp.BodyType{
	cmp.BodyIR: cmp.BodyIP, cmp.BodyCR: cmp.BodyCP, cmp.BodyP10CR: cmp.BodyCP, cmp.BodyKUR: cmp.BodyKUP,
}

var oidImplicitConfirm = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 13}

// How an answer is protected.
const (
	signed      = "signature"
	withMAC     = "MAC"
	unprotected = "none"
)

// refusal is an answer that says no. Before the end entity is registered EJBCA gives an answer that is not protected,
// otherwise an error message that it signs.
type refusal struct {
	text       string
	bit        cmp.FailureBit
	protection string
}

func (r *refusal) Error() string { return r.text }

func refuse(format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), cmp.FailBadRequest, signed}
}

func (s *Server) answer(request *cmp.PKIMessage) (*cmp.PKIMessage, error) {
	secret, err := s.authenticate(request)
	var certificate *x509.Certificate
	var body cmp.PKIBody
	if err == nil {
		body, certificate, err = s.body(request)
	}
	var no *refusal
	protection := s.protectionOf(request, body.Type)
	switch {
	case errors.As(err, &no):
		body, protection = s.refusalBody(request, no), no.protection
	case err != nil:
		return nil, err
	}
	header := request.Header.Answer(cmp.DirectoryName(s.issuing.RawSubject), s.config.Now())
	header.PVNO = cmp.PVNO2
	if certificate != nil {
		header.Recipient = cmp.DirectoryName(certificate.RawSubject)
		if request.Header.ImplicitConfirm() { // granted without a value
			header.GeneralInfo = []cmp.InfoTypeAndValue{{Type: oidImplicitConfirm}}
		}
		s.opened[string(request.Header.TransactionID)] = secret
	}
	return s.protect(&cmp.PKIMessage{Header: header, Body: body}, request, protection, secret)
}

// body does what an authenticated message asks for.
func (s *Server) body(request *cmp.PKIMessage) (cmp.PKIBody, *x509.Certificate, error) {
	switch request.Body.Content.(type) {
	case cmp.CertReqMessages, cmp.CertificationRequest:
		return s.enroll(request)
	case cmp.CertConfirmContent: // whatever it says
		return cmp.PKIBody{Type: cmp.BodyPKIConf, Content: cmp.PKIConfirmContent{}}, nil, nil
	case cmp.RevReqContent:
		accepted := &cmp.RevRepContent{Status: []cmp.PKIStatusInfo{{Status: cmp.StatusAccepted}}}
		return cmp.PKIBody{Type: cmp.BodyRP, Content: accepted}, nil, nil
	}
	return cmp.PKIBody{}, nil, refuse("Can not handle message type '%d'.", request.Body.Type)
}

// refusalBody: without protection it is an answer to the request, except to p10cr.
func (s *Server) refusalBody(request *cmp.PKIMessage, no *refusal) cmp.PKIBody {
	info := cmp.Rejection(no.text, no.bit)
	messages, isCRMF := request.Body.Content.(cmp.CertReqMessages)
	if isCRMF && no.protection == unprotected {
		response := cmp.CertResponse{CertReqID: messages[0].CertReq.CertReqID, Status: info}
		content := &cmp.CertRepMessage{Response: []cmp.CertResponse{response}}
		return cmp.PKIBody{Type: answers[request.Body.Type], Content: content}
	}
	return cmp.PKIBody{Type: cmp.BodyError, Content: &cmp.ErrorMsgContent{StatusInfo: info}}
}

// protectionOf: even with pbe, an answer to a signed request is signed, and so is the certificate in client mode.
func (s *Server) protectionOf(request *cmp.PKIMessage, answer cmp.BodyType) string {
	issues := answer == cmp.BodyIP || answer == cmp.BodyCP || answer == cmp.BodyKUP
	if !s.config.PBE || !request.MACProtected() || s.config.Passwords != nil && issues {
		return signed
	}
	return withMAC
}

func (s *Server) protect(m, request *cmp.PKIMessage, way, secret string) (*cmp.PKIMessage, error) {
	switch way {
	case signed:
		m.SetSigner(s.issuing, nil)
		m.ExtraCerts = [][]byte{s.issuing.Raw}
		if s.config.SubCA {
			m.ExtraCerts = append(m.ExtraCerts, s.root.Raw)
		}
		return m, cmp.ProtectSignature(m, s.key)
	case withMAC:
		keys := cmp.NewMACKeys([]byte(secret))
		mac, err := keys.Verify(request)
		if err != nil {
			return nil, err
		}
		m.Header.SenderKID = request.Header.SenderKID
		return m, keys.Protect(m, mac)
	}
	return m, nil
}

// noCertificate is what the module EndEntityCertificate says of a message under a secret.
const noCertificate = "Error while reading a certificate from the extraCert field"

// wrongSecret is what the last of the authentication modules says of a message that none of them takes.
func (s *Server) wrongSecret() error {
	if s.config.Modules == SecretFirst {
		return refuse(noCertificate)
	}
	return refuse("Failed to verify message using both Global Shared Secret and CMP RA Authentication Secret")
}

// authenticate returns the secret that the message is protected with; none for a signature.
func (s *Server) authenticate(request *cmp.PKIMessage) (string, error) {
	if s.offline {
		return "", refuse("signsession.canotactive, %s", asWritten(s.issuing.RawSubject))
	}
	if _, served := request.Body.Content.(cmp.GeneralContent); served {
		return "", nil // refused for what it is
	}
	if !request.MACProtected() {
		return "", s.authenticateSigner(request)
	}
	secret, known := s.config.Secret, true
	if s.config.Passwords != nil {
		secret, known = s.password(request)
	}
	if !known || request.Body.Type == cmp.BodyKUR {
		return "", s.wrongSecret()
	}
	if _, err := cmp.NewMACKeys([]byte(secret)).Verify(request); err != nil {
		return "", s.wrongSecret()
	}
	return secret, nil
}

// password is the end entity's, of which there is none after its certificate was issued, except for the confirmation.
func (s *Server) password(request *cmp.PKIMessage) (string, bool) {
	if secret, open := s.opened[string(request.Header.TransactionID)]; open {
		return secret, true
	}
	sender, isName := request.Header.Sender.Name()
	if !isName {
		return "", false
	}
	user := commonName(sender)
	secret, known := s.config.Passwords[user]
	return secret, known && !s.used[user]
}

// authenticateSigner checks the signer, who in RA mode acts as an administrator.
func (s *Server) authenticateSigner(request *cmp.PKIMessage) error {
	if request.Header.ProtectionAlg == nil || len(request.ExtraCerts) == 0 {
		return refuse(noCertificate)
	}
	signer, err := x509.ParseCertificate(request.ExtraCerts[0])
	if err != nil || cmp.VerifySignature(request, signer.PublicKey) != nil {
		return refuse(noCertificate)
	}
	now := s.config.Now()
	switch {
	case !s.isKnown(signer), now.Before(signer.NotBefore), now.After(signer.NotAfter):
		return refuse("The certificate chain attached to the PKIMessage in the extraCert field is not valid - " +
			"Certification path could not be validated.")
	case slices.ContainsFunc(s.config.Revoked, func(der []byte) bool { return bytes.Equal(der, signer.Raw) }):
		return refuse("The certificate attached to the PKI message in the extraCert field is revoked.")
	case s.config.Passwords == nil && !s.mayUpdate(signer):
		return refuse("'%s' is not an authorized administrator.", asWritten(signer.RawSubject))
	}
	return nil
}

func (s *Server) isKnown(signer *x509.Certificate) bool {
	signed := func(issuer *x509.Certificate) bool { return signer.CheckSignatureFrom(issuer) == nil }
	return slices.ContainsFunc(append(s.config.KnownIssuers, s.issuing), signed)
}

// mayUpdate: for EMPTY, EJBCA wants super administrators.
func (s *Server) mayUpdate(signer *x509.Certificate) bool {
	isMember := slices.Contains(signer.Subject.Organization, s.config.UpdatesFor)
	return isMember && !s.config.NoRole && s.config.EndEntityProfile != EMPTY
}

// asWritten writes a distinguished name with its RDNs in the order that they have, as EJBCA does.
func asWritten(der []byte) string {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &name); err != nil {
		return err.Error()
	}
	slices.Reverse(name) // because RDNSequence.String reverses
	return name.String()
}
