package ejbca

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// wanted is a request for a certificate.
type wanted struct {
	id              int64
	subject, issuer []byte // DER Names
	key             any
	names           []byte // value of subjectAltName; nil: none
}

func read(request *cmp.PKIMessage) (wanted, error) {
	messages, isCRMF := request.Body.Content.(cmp.CertReqMessages)
	if !isCRMF { // its answer has certReqId 0
		csr, err := x509.ParseCertificateRequest(request.Body.Content.(cmp.CertificationRequest))
		if err != nil || csr.CheckSignature() != nil {
			return wanted{}, refuse("Failed to verify Proof-of-Possession of private key")
		}
		return wanted{subject: csr.RawSubject, key: csr.PublicKey, names: subjectAltName(csr.Extensions)}, nil
	}
	template := &messages[0].CertReq.CertTemplate
	key, err := template.Key()
	if err != nil || messages[0].VerifyPOPO() != nil {
		return wanted{}, refuse("Failed to verify Proof-of-Possession of private key")
	}
	return wanted{
		id: messages[0].CertReq.CertReqID, subject: template.Subject, issuer: template.Issuer, key: key,
		names: subjectAltName(template.Extensions),
	}, nil
}

func subjectAltName(extensions []pkix.Extension) []byte {
	for _, extension := range extensions {
		if extension.Id.Equal(oidSubjectAltName) {
			return extension.Value
		}
	}
	return nil
}

// enroll registers the end entity and issues a certificate for it.
func (s *Server) enroll(request *cmp.PKIMessage) (cmp.PKIBody, *x509.Certificate, error) {
	w, err := read(request)
	if err != nil {
		return cmp.PKIBody{}, nil, err
	}
	var entity Entity
	profile, err := s.profile(request)
	switch {
	case err != nil:
	case request.Body.Type == cmp.BodyKUR:
		entity, err = s.registered(w)
	default:
		entity, err = s.register(w)
	}
	if _, isEd25519 := w.key.(ed25519.PublicKey); err == nil && isEd25519 && s.config.Ed25519NotAllowed {
		err = refuse("Illegal key algorithm, not authorized by certificate profile: Ed25519.")
	}
	if err != nil {
		return cmp.PKIBody{}, nil, err
	}
	certificate, err := s.issue(entity, w.key, profile)
	if err != nil {
		return cmp.PKIBody{}, nil, err
	}
	s.issued = append(s.issued, certificate)
	s.used[commonName(entity.Subject)] = true
	return cmp.PKIBody{Type: answers[request.Body.Type], Content: &cmp.CertRepMessage{
		CAPubs: [][]byte{s.issuing.Raw},
		Response: []cmp.CertResponse{{
			CertReqID: w.id, Status: cmp.PKIStatusInfo{Status: cmp.StatusAccepted},
			CertifiedKeyPair: &cmp.CertifiedKeyPair{Certificate: certificate.Raw},
		}},
	}}, certificate, nil
}

// profile is the certificate profile for the request.
func (s *Server) profile(request *cmp.PKIMessage) (profile, error) {
	name := s.config.CertificateProfile
	if name == KeyID {
		name = string(request.Header.SenderKID)
	}
	if found, known := profiles[name]; known {
		return found, nil
	}
	return profile{}, &refusal{"No certificate profile found with name: " + name, cmp.FailSystemUnavail, unprotected}
}

// registered finds the end entity that an update is for, by subject and issuer. What it is answered with are the names
// that were registered last, whatever the request and the old certificate have.
func (s *Server) registered(w wanted) (Entity, error) {
	entity, found := s.entities[commonName(w.subject)]
	isIssuer := w.issuer == nil || pki.SameName(w.issuer, s.issuing.RawSubject)
	if !found || !isIssuer || !pki.SameName(entity.Subject, w.subject) {
		return Entity{}, refuse("Error. Received a CMP KeyUpdateRequest for a non-existing end entity")
	}
	if s.config.AllowOverride {
		entity.Names = w.names
	}
	return entity, nil
}

// register makes the end entity, or changes the one of the same user name.
func (s *Server) register(w wanted) (Entity, error) {
	if err := s.checkFields(w.subject); err != nil {
		return Entity{}, err
	}
	subject, err := inOrder(w.subject, s.config.CommonNamePostfix)
	if err != nil {
		return Entity{}, err
	}
	entity := Entity{subject, w.names}
	s.entities[commonName(subject)] = entity
	return entity, nil
}

// fields are the subject's fields by the names that EJBCA has for them in its refusals.
var fields = map[string]string{
	"2.5.4.3": "COMMONNAME", "2.5.4.6": "COUNTRY", "2.5.4.7": "LOCALITY", "2.5.4.8": "STATEORPROVINCE",
	"2.5.4.10": "ORGANIZATION", "2.5.4.11": "ORGANIZATIONALUNIT",
}

// checkFields holds the subject to the end entity profile, if that requires anything: then one of each is allowed.
func (s *Server) checkFields(subject []byte) error {
	if len(s.config.RequiredFields) == 0 {
		return nil
	}
	count := map[string]int{}
	for _, part := range parts(subject) {
		count[fields[part.kind]]++
	}
	for field, n := range count {
		if n > 1 {
			return refuseSubject("Wrong number of " + field + " fields in Subject DN.")
		}
	}
	for _, field := range s.config.RequiredFields {
		if count[field] == 0 {
			return refuseSubject("Subject DN field '" + field + "' must exist.")
		}
	}
	return nil
}

func refuseSubject(text string) error { return &refusal{text, cmp.FailIncorrectData, unprotected} }

// part is one RDN.
type part struct {
	kind string // OID of its first attribute
	der  asn1.RawValue
	text string
}

func parts(name []byte) []part {
	var rdns []asn1.RawValue
	if rest, err := asn1.Unmarshal(name, &rdns); err != nil || len(rest) > 0 {
		return nil
	}
	var list []part
	for _, der := range rdns {
		var rdn pkix.RelativeDistinguishedNameSET
		if _, err := asn1.UnmarshalWithParams(der.FullBytes, &rdn, "set"); err != nil || len(rdn) == 0 {
			return nil
		}
		text, _ := rdn[0].Value.(string)
		list = append(list, part{rdn[0].Type.String(), der, text})
	}
	return list
}

func commonName(name []byte) string {
	for _, part := range parts(name) {
		if part.kind == "2.5.4.3" {
			return part.text
		}
	}
	return ""
}

// order is EJBCA's own of the parts of a subject.
var order = []string{"2.5.4.3", "2.5.4.11", "2.5.4.10", "2.5.4.7", "2.5.4.8", "2.5.4.6"}

// inOrder puts a subject's parts in EJBCA's order, whatever the request's was.
func inOrder(name []byte, postfix string) ([]byte, error) {
	list := parts(name)
	rank := func(p part) int {
		if at := slices.Index(order, p.kind); at >= 0 {
			return at
		}
		return len(order)
	}
	slices.SortStableFunc(list, func(a, b part) int { return rank(a) - rank(b) })
	var rdns []asn1.RawValue
	for _, p := range list {
		if p.kind == "2.5.4.3" && postfix != "" {
			value := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: p.text + postfix}
			der, err := asn1.MarshalWithParams([]pkix.AttributeTypeAndValue{value}, "set")
			if err != nil {
				return nil, err
			}
			p.der = asn1.RawValue{FullBytes: der}
		}
		rdns = append(rdns, p.der)
	}
	return asn1.Marshal(rdns)
}
