package cmp

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// clockSkew is how much later than our clock a certificate may begin to be valid.
const clockSkew = 5 * time.Minute

// checkSingleResponse: one request, one response (RFC 9483, 4.1.1).
func checkSingleResponse(m *PKIMessage) (CertResponse, error) {
	responses := m.Body.Content.(*CertRepMessage).Response
	if len(responses) != 1 {
		return CertResponse{}, &CheckError{Check: "CertResponse", Got: fmt.Sprint(len(responses)), Want: "exactly one"}
	}
	return responses[0], nil
}

// checkCertReqID: the response is to our request, which has certReqId 0 (RFC 9810, 5.3.4).
func checkCertReqID(id int64) error {
	if id == 0 {
		return nil
	}
	return &CheckError{Check: "certReqId", Got: fmt.Sprint(id), Want: "0"}
}

// checkNoCertificateWithRejection: a refusal that brings a
// certificate contradicts itself (RFC 9810, 5.3.4).
func checkNoCertificateWithRejection(m *PKIMessage) error {
	rep, ok := m.Body.Content.(*CertRepMessage)
	if ok && slices.ContainsFunc(rep.Response, func(r CertResponse) bool { return r.CertifiedKeyPair != nil }) {
		return &CheckError{Check: "status", Got: "rejection together with a certificate", Want: "one or the other"}
	}
	return nil
}

// checkGranted: the status says that there is a certificate,
// and there is (RFC 9810, 5.2.3 and 5.3.4).
func checkGranted(r CertResponse) error {
	if r.Status.Status != StatusAccepted && r.Status.Status != StatusGrantedWithMods {
		return &CheckError{Check: "status", Got: r.Status.Status.String(),
			Want: "accepted, grantedWithMods, waiting or rejection"}
	}
	if r.CertifiedKeyPair == nil {
		return &CheckError{Check: "certificate", Got: "none, with status " + r.Status.Status.String(), Want: "one"}
	}
	return nil
}

// readCertificate: a certificate in the clear and no private key, since the key was made here
// (RFC 9810, 5.3.4; RFC 9483, 4.1.1).
func readCertificate(pair *CertifiedKeyPair) (*x509.Certificate, error) {
	if pair.EncryptedCert != nil {
		return nil, &CheckError{Check: "certificate", Got: "an encryptedCert", Want: "a certificate in the clear"}
	}
	if pair.PrivateKey != nil {
		return nil, &CheckError{Check: "certificate", Got: "a private key with it", Want: "none: the key was made here"}
	}
	certificate, err := parseCertificate(pair.Certificate)
	if err != nil {
		return nil, &CheckError{Check: "certificate",
			Got: "one that cannot be read (" + err.Error() + ")", Want: "an X.509 certificate"}
	}
	return certificate, nil
}

// checkCertificate runs the checks of an issued certificate
// against what was asked for (RFC 9483, 4.1.1).
func (c *Client) checkCertificate(certificate *x509.Certificate, csr *x509.CertificateRequest) error {
	checks := []error{
		checkPublicKey(certificate, csr),
		checkNotCA(certificate),
		checkValidity(certificate, c.cfg.Now()),
	}
	if !c.cfg.AllowModified {
		checks = append(checks, checkSubject(certificate, csr), checkSubjectAltNames(certificate, csr))
	}
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkPublicKey: the certificate is for our key (RFC 9483, 4.1.1).
func checkPublicKey(certificate *x509.Certificate, csr *x509.CertificateRequest) error {
	if pki.SameKey(csr.PublicKey, certificate.PublicKey) {
		return nil
	}
	return &CheckError{Check: "public key", Got: "another key in the certificate", Want: "ours"}
}

// checkNotCA: we asked for an end entity's certificate (RFC 5280, 4.2.1.9 and 4.2.1.3).
func checkNotCA(certificate *x509.Certificate) error {
	if certificate.IsCA {
		return &CheckError{Check: "basicConstraints", Got: "CA:TRUE", Want: "an end entity's certificate"}
	}
	if certificate.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return &CheckError{Check: "keyUsage", Got: "keyCertSign or cRLSign", Want: "an end entity's certificate"}
	}
	return nil
}

// checkValidity: the certificate is valid now (RFC 5280, 4.1.2.5).
func checkValidity(certificate *x509.Certificate, now time.Time) error {
	switch at := now.UTC().Format(time.RFC3339); {
	case !certificate.NotAfter.After(certificate.NotBefore):
		return &CheckError{Check: "validity", Got: "notAfter " + certificate.NotAfter.Format(time.RFC3339),
			Want: "later than notBefore " + certificate.NotBefore.Format(time.RFC3339)}
	case !certificate.NotAfter.After(now):
		return &CheckError{Check: "validity", Got: "notAfter " + certificate.NotAfter.Format(time.RFC3339),
			Want: "later than " + at}
	case certificate.NotBefore.After(now.Add(clockSkew)):
		return &CheckError{Check: "validity", Got: "notBefore " + certificate.NotBefore.Format(time.RFC3339),
			Want: fmt.Sprintf("at most %s after %s; do the clocks agree?", clockSkew, at)}
	}
	return nil
}

// checkSubject: the subject is the one asked for (RFC 9483, 4.1.1).
func checkSubject(certificate *x509.Certificate, csr *x509.CertificateRequest) error {
	if pki.SameName(certificate.RawSubject, csr.RawSubject) {
		return nil
	}
	return &CheckError{Check: "subject", Got: fmt.Sprintf("%q", pki.DN(certificate.RawSubject)),
		Want: fmt.Sprintf("%q", pki.DN(csr.RawSubject))}
}

// checkSubjectAltNames: the alternative names are those asked for and no others (RFC 9483, 4.1.1).
func checkSubjectAltNames(certificate *x509.Certificate, csr *x509.CertificateRequest) error {
	if sameExtension(oidSAN, certificate.Extensions, csr.Extensions) {
		return nil
	}
	got, err := alternativeNames(certificate.Extensions)
	if err != nil {
		return &CheckError{Check: "subjectAltName", Got: err.Error(), Want: "a list of names"}
	}
	want, err := alternativeNames(csr.Extensions)
	if err != nil {
		return fmt.Errorf("reading names of the certificate signing request: %w", err)
	}
	if slices.Equal(got, want) {
		return nil
	}
	return &CheckError{Check: "subjectAltName", Got: nameList(got), Want: nameList(want)}
}

// sameExtension says whether two lists have an extension, once, with the same bytes.
func sameExtension(id asn1.ObjectIdentifier, a, b []pkix.Extension) bool {
	x, y := find(id, a), find(id, b)
	return x >= 0 && y >= 0 && bytes.Equal(a[x].Value, b[y].Value) &&
		find(id, a[x+1:]) < 0 && find(id, b[y+1:]) < 0
}

// find returns the place of an extension, or -1.
func find(id asn1.ObjectIdentifier, extensions []pkix.Extension) int {
	return slices.IndexFunc(extensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
}

// SameAlternativeNames says whether two lists of extensions, of certificates or of requests, hold
// the same set of subject alternative names, compared as RFC 5280, 4.2.1.6 and 7 want. Names that
// cannot be read are not the same as any.
func SameAlternativeNames(a, b []pkix.Extension) bool {
	x, errX := alternativeNames(a)
	y, errY := alternativeNames(b)
	return errX == nil && errY == nil && slices.Equal(x, y)
}

func nameList(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// alternativeNames returns the names in subjectAltName as text that can be compared, sorted, each
// once. DNS names and the e-mail addresses' domains have no case (RFC 5280, 4.2.1.6 and 7.2).
func alternativeNames(extensions []pkix.Extension) ([]string, error) {
	var names []string
	for _, extension := range extensions {
		if !extension.Id.Equal(oidSAN) {
			continue
		}
		s := cryptobyte.String(extension.Value)
		var list cryptobyte.String
		if !s.ReadASN1(&list, cbasn1.SEQUENCE) || !s.Empty() {
			return nil, errors.New("names that do not parse")
		}
		for !list.Empty() {
			var value cryptobyte.String
			var tag cbasn1.Tag
			if !list.ReadAnyASN1(&value, &tag) {
				return nil, errors.New("names that do not parse")
			}
			names = append(names, alternativeName(tag, value))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func alternativeName(tag cbasn1.Tag, value []byte) string {
	switch tag {
	case implicit(1):
		local, domain, _ := strings.Cut(string(value), "@")
		return fmt.Sprintf("email %q", local+"@"+strings.ToLower(domain))
	case implicit(2):
		return fmt.Sprintf("DNS %q", strings.ToLower(string(value)))
	case implicit(6):
		return fmt.Sprintf("URI %q", string(value))
	case implicit(7):
		if address, ok := netip.AddrFromSlice(value); ok {
			return "IP " + address.String()
		}
	}
	return fmt.Sprintf("name of kind %d %x", uint8(tag)&0x1f, value)
}

// warnOfCertificate logs what is not a reason to refuse a certificate, but may cause trouble later.
func (t *transaction) warnOfCertificate(certificate *x509.Certificate, csr *x509.CertificateRequest) {
	log := t.log
	if !t.c.known.sameIssuer(certificate.RawIssuer, t.c.issuer) {
		log.Warn("the certificate's issuer is not the configured one: some CAs will not find "+
			"the certificate in an update",
			"issuer", show(pki.DN(certificate.RawIssuer)), "configured", pki.DN(t.c.issuer))
	}
	if missing := missingExtKeyUsages(certificate, csr); len(missing) > 0 {
		log.Warn("the certificate lacks requested extended key usages: peers may refuse it; "+
			"see the certificate profile of the CA", "missing", strings.Join(missing, ", "),
			"subject", show(pki.DN(certificate.RawSubject)))
	}
}

var (
	oidAnyExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	// extKeyUsageNames are the usages that people ask for (RFC 5280, 4.2.1.12).
	extKeyUsageNames = map[string]string{
		"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth", "1.3.6.1.5.5.7.3.3": "codeSigning",
		"1.3.6.1.5.5.7.3.4": "emailProtection", "1.3.6.1.5.5.7.3.8": "timeStamping", "1.3.6.1.5.5.7.3.9": "OCSPSigning",
	}
)

// missingExtKeyUsages names the extended key usages that the template
// asks for and the certificate does not allow. One without the extension,
// or with anyExtendedKeyUsage, allows them all (RFC 5280, 4.2.1.12).
func missingExtKeyUsages(certificate *x509.Certificate, csr *x509.CertificateRequest) (missing []string) {
	asked := []pkix.Extension{askedFor(csr, defaultExtKeyUsage)}
	if sameExtension(oidExtKeyUsage, certificate.Extensions, asked) {
		return nil
	}
	granted, restricted := extKeyUsages(certificate.Extensions)
	if !restricted || slices.ContainsFunc(granted, oidAnyExtKeyUsage.Equal) {
		return nil
	}
	wanted, _ := extKeyUsages(asked)
	for _, usage := range wanted {
		if slices.ContainsFunc(granted, usage.Equal) {
			continue
		}
		name, known := extKeyUsageNames[usage.String()]
		if !known {
			name = usage.String()
		}
		missing = append(missing, name)
	}
	return missing
}

// extKeyUsages reads extKeyUsage. present is false when it is absent or cannot be read.
func extKeyUsages(extensions []pkix.Extension) (usages []asn1.ObjectIdentifier, present bool) {
	i := find(oidExtKeyUsage, extensions)
	if i < 0 {
		return nil, false
	}
	rest, err := asn1.Unmarshal(extensions[i].Value, &usages)
	return usages, err == nil && len(rest) == 0
}

// checkStructure explains a body that is not a PKIMessage:
// with an HTTP error status, that status matters more.
func checkStructure(err error, httpStatus int) error {
	if httpStatus != http.StatusOK {
		return &TransportError{StatusCode: httpStatus, Err: err}
	}
	return &CheckError{Check: "structure", Got: "a body that does not parse (" + err.Error() + ")",
		Want: "one DER PKIMessage"}
}

// answerTypes are the bodies that answer each request (RFC 9810, 5.3; RFC 9483, 4).
var answerTypes = map[BodyType][]BodyType{
	BodyIR:       {BodyIP},
	BodyCR:       {BodyCP},
	BodyP10CR:    {BodyCP},
	BodyKUR:      {BodyKUP},
	BodyRR:       {BodyRP},
	BodyGenM:     {BodyGenP},
	BodyCertConf: {BodyPKIConf},
	// What is polled for answers the request that came before, which checkPolledType looks at.
	BodyPollReq: {BodyPollRep, BodyIP, BodyCP, BodyKUP, BodyPKIConf, BodyRP, BodyGenP},
}

// checkBodyType: the answer is of the kind that answers the request (RFC 9810, 5.3).
func checkBodyType(m *PKIMessage, request BodyType) error {
	if slices.Contains(answerTypes[request], m.Body.Type) {
		return nil
	}
	return &CheckError{Check: "body type", Got: m.Body.Type.String(), Want: fmt.Sprintf("an answer to %s", request)}
}

// checkPVNO: version 2, or 3, which has the same syntax for what we read. RFC 9810, 7 would have
// it be that of the request, but nothing depends on it.
func checkPVNO(m *PKIMessage) error {
	if m.Header.PVNO == PVNO2 || m.Header.PVNO == PVNO3 {
		return nil
	}
	return &CheckError{Check: "pvno", Got: fmt.Sprint(m.Header.PVNO), Want: "2 or 3"}
}

// checkTransactionID: the answer is in our transaction (RFC 9810, 5.1.1; RFC 9483, 3.5).
func checkTransactionID(m *PKIMessage, id []byte) error {
	return checkBytes("transactionID", m.Header.TransactionID, id)
}

// checkRecipNonce: the answer is to this request and not an
// old one replayed (RFC 9810, 5.1.1; RFC 9483, 3.5).
func checkRecipNonce(m *PKIMessage, allowed [][]byte) error {
	for _, nonce := range allowed[1:] {
		if nonce != nil && bytes.Equal(m.Header.RecipNonce, nonce) {
			return nil
		}
	}
	return checkBytes("recipNonce", m.Header.RecipNonce, allowed[0])
}

func checkBytes(check string, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	e := &CheckError{Check: check, Got: fmt.Sprintf("%.32x", got), Want: fmt.Sprintf("%x", want)}
	if len(got) == 0 {
		e.Got = "none"
	}
	return e
}

// checkSenderNonce: the server has a nonce of its own and
// does not reflect ours (RFC 9810, 5.1.1; RFC 9483, 3.1).
func checkSenderNonce(m *PKIMessage, ours []byte) error {
	switch {
	case len(m.Header.SenderNonce) == 0:
		return &CheckError{Check: "senderNonce", Got: "none", Want: "one of the server's own"}
	case bytes.Equal(m.Header.SenderNonce, ours):
		return &CheckError{Check: "senderNonce", Got: "ours", Want: "one of the server's own"}
	}
	return nil
}

// checkMessageTime: the answer was made now, as far as the
// clocks agree (RFC 9483, 3.5). The field is optional.
func checkMessageTime(m *PKIMessage, now time.Time, window time.Duration) error {
	at := m.Header.MessageTime
	if at.IsZero() || (at.After(now.Add(-window)) && at.Before(now.Add(window))) {
		return nil
	}
	return &CheckError{Check: "messageTime", Got: at.Format(time.RFC3339),
		Want: fmt.Sprintf("within %s of %s; do the clocks agree?", window, now.UTC().Format(time.RFC3339))}
}
