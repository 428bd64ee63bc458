package devca

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// wanted is the certificate that a request asks for, checked.
type wanted struct {
	certReqID  int64
	subject    []byte           // DER Name
	key        []byte           // DER SubjectPublicKeyInfo
	extensions []pkix.Extension // those that are granted
	modified   string           // what is not granted, for people; empty: all is
}

// wanted reads the request for a certificate. All its errors are refusals.
func (e *exchange) wanted() (*wanted, error) {
	switch content := e.request.Body.Content.(type) {
	case cmp.CertReqMessages:
		return e.fromCRMF(content)
	default:
		return e.fromPKCS10(content.(cmp.CertificationRequest))
	}
}

func (e *exchange) fromCRMF(messages cmp.CertReqMessages) (*wanted, error) {
	if len(messages) != 1 {
		return nil, refuse(cmp.FailBadRequest, "the message has %d requests, want one", len(messages))
	}
	message := &messages[0]
	template := &message.CertReq.CertTemplate
	key, err := template.Key()
	if err != nil {
		return nil, refuse(cmp.FailBadCertTemplate, "%v", err)
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if err := message.VerifyPOPO(); err != nil {
		return nil, refuse(cmp.FailBadPOP, "%v", err)
	}
	w := &wanted{certReqID: message.CertReq.CertReqID, subject: template.Subject, key: template.PublicKey}
	if e.request.Body.Type == cmp.BodyKUR {
		if err := e.checkUpdate(w, &message.CertReq); err != nil {
			return nil, err
		}
	}
	if template.Validity != nil {
		w.modified = "the validity is this CA's, not the one asked for"
	}
	return w, w.check(template.Extensions, key, e.ca.config.StrictKeyUsage)
}

// checkUpdate holds a kur to the certificate it is for, which is the one that signed it (RFC 9483, 4.1.3).
// A request that does not name that certificate is taken, because the ONAP server's do not.
func (e *exchange) checkUpdate(w *wanted, request *cmp.CertRequest) error {
	old := e.by.signer
	id, err := request.OldCertID()
	if err != nil {
		return refuse(cmp.FailBadCertID, "%v", err)
	}
	if id != nil {
		issuer, isName := id.Issuer.Name()
		if !isName || !cmp.SameName(issuer, old.RawIssuer) || id.SerialNumber.Cmp(old.SerialNumber) != 0 {
			return refuse(cmp.FailBadCertID, "oldCertID is not the certificate that the message is signed by")
		}
	}
	if emptyName(w.subject) {
		w.subject = old.RawSubject
	}
	if !cmp.SameName(w.subject, old.RawSubject) {
		return refuse(cmp.FailBadCertTemplate, "the subject %.200q is not %.200q, which the update is for",
			cmp.DirectoryName(w.subject), cmp.DirectoryName(old.RawSubject))
	}
	return nil
}

func (e *exchange) fromPKCS10(der []byte) (*wanted, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse(cmp.FailBadDataFormat, "reading the PKCS#10 request: %v", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse(cmp.FailBadPOP, "verifying the signature of the PKCS#10 request: %v", err)
	}
	w := &wanted{certReqID: p10crID, subject: csr.RawSubject, key: csr.RawSubjectPublicKeyInfo}
	return w, w.check(csr.Extensions, csr.PublicKey, e.ca.config.StrictKeyUsage)
}

// emptyName says whether a DER Name is missing or has no RDNs.
func emptyName(name []byte) bool { return len(name) <= 2 }

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// What leaves get that ask for no usages: as the ONAP server asks.
var defaultExtKeyUsage = pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 0x14,
	6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}} // clientAuth, serverAuth

// check fills in the extensions that are granted and refuses what this CA does not issue.
func (w *wanted) check(asked []pkix.Extension, key crypto.PublicKey, strict bool) error {
	var seen []string
	for _, extension := range asked {
		if slices.Contains(seen, extension.Id.String()) {
			return refuse(cmp.FailBadCertTemplate, "extension %s is asked for twice", extension.Id)
		}
		seen = append(seen, extension.Id.String())
		if extension.Id.Equal(oidKeyUsage) {
			if err := w.grantKeyUsage(extension, key, strict); err != nil {
				return err
			}
			continue
		}
		granted, err := checkExtension(extension)
		switch {
		case err != nil:
			return err
		case granted:
			w.extensions = append(w.extensions, extension)
		case extension.Id.Equal(oidSubjectKeyID), extension.Id.Equal(oidAuthorityKeyID): // every certificate has them, with values made here
		default:
			w.modified = "the extension " + extension.Id.String() + " is left out"
		}
	}
	if emptyName(w.subject) {
		w.subject = []byte{0x30, 0} // present even if empty
	}
	if !w.has(oidSubjectAltName) && emptyName(w.subject) {
		return refuse(cmp.FailBadCertTemplate, "there is neither a subject nor a subject alternative name")
	}
	if !w.has(oidKeyUsage) {
		w.extensions = append(w.extensions, defaultKeyUsage(key))
	}
	if !w.has(oidExtKeyUsage) {
		w.extensions = append(w.extensions, defaultExtKeyUsage)
	}
	return nil
}

func (w *wanted) has(id asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(w.extensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
}

// minRSABits is the smallest modulus that is certified.
const minRSABits = 2048

// checkKey must come before the proof of possession, which is computed with the key.
func checkKey(key crypto.PublicKey) error {
	modulus, isRSA := key.(*rsa.PublicKey)
	if cmp.CheckKey(key) == nil && (!isRSA || modulus.N.BitLen() >= minRSABits) {
		return nil
	}
	return refuse(cmp.FailBadAlg, "the key is of no kind that is certified here: want RSA of %d to %d bits, ECDSA P-256, P-384 or P-521, or Ed25519",
		minRSABits, pki.MaxRSABits)
}

// checkExtension says whether an extension is granted as it is.
func checkExtension(extension pkix.Extension) (bool, error) {
	switch {
	case extension.Id.Equal(oidSubjectAltName), extension.Id.Equal(oidExtKeyUsage):
		return true, nil
	case extension.Id.Equal(oidBasicConstraints):
		var constraints struct {
			IsCA       bool `asn1:"optional"`
			MaxPathLen int  `asn1:"optional,default:-1"`
		}
		if rest, err := asn1.Unmarshal(extension.Value, &constraints); err != nil || len(rest) > 0 {
			return false, refuse(cmp.FailBadCertTemplate, "basicConstraints cannot be read")
		}
		if constraints.IsCA {
			return false, refuse(cmp.FailBadCertTemplate, "basicConstraints asks for a CA certificate, want one for an end entity")
		}
		if constraints.MaxPathLen >= 0 { // RFC 5280, 4.2.1.9
			return false, refuse(cmp.FailBadCertTemplate,
				"basicConstraints has a pathLenConstraint of %d, which only CA certificates may have", constraints.MaxPathLen)
		}
		return true, nil
	case extension.Critical && !extension.Id.Equal(oidSubjectKeyID) && !extension.Id.Equal(oidAuthorityKeyID):
		return false, refuse(cmp.FailUnacceptedExtension, "extension %s is critical and not known here", extension.Id)
	}
	return false, nil
}
