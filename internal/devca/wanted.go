package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// readWanted is the certificate that a request asks for, checked.
type wanted struct {
	certReqID  int64
	subject    []byte // DER Name
	key        crypto.PublicKey
	usage      x509.KeyUsage    // that is granted
	extensions []pkix.Extension // other extensions that are granted
	modified   string           // what is not granted, for people; empty: all is
}

// readWanted reads the request for a certificate. All its errors are refusals.
func (e *exchange) readWanted() (*wanted, error) {
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
	w := &wanted{certReqID: message.CertReq.CertReqID, subject: template.Subject, key: key}
	if e.request.Body.Type == cmp.BodyKUR {
		if err := e.checkUpdate(w, &message.CertReq); err != nil {
			return nil, err
		}
	}
	if template.Validity != nil {
		w.modified = "the validity is this CA's, not the one asked for"
	}
	return w, w.check(template.Extensions, e.ca.config.StrictKeyUsage)
}

// checkUpdate holds a kur to the certificate it is for, which is
// the one that signed it (RFC 9483, 4.1.3). A request that does not
// name that certificate is taken, because the ONAP server's do not.
func (e *exchange) checkUpdate(w *wanted, request *cmp.CertRequest) error {
	old := e.by.signer
	id, err := request.OldCertID()
	if err != nil {
		return refuse(cmp.FailBadCertID, "%v", err)
	}
	if id != nil {
		issuer, isName := id.Issuer.Name()
		if !isName || !pki.SameName(issuer, old.RawIssuer) || id.SerialNumber.Cmp(old.SerialNumber) != 0 {
			return refuse(cmp.FailBadCertID, "oldCertID is not the certificate that the message is signed by")
		}
	}
	if emptyName(w.subject) {
		w.subject = old.RawSubject
	}
	if !pki.SameName(w.subject, old.RawSubject) {
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
		return nil, refuse(cmp.FailBadPOP, "verifying the PKCS#10 signature: %v", err)
	}
	w := &wanted{certReqID: p10crID, subject: csr.RawSubject, key: csr.PublicKey}
	return w, w.check(csr.Extensions, e.ca.config.StrictKeyUsage)
}

// emptyName says whether a DER Name is missing or has no RDNs.
func emptyName(name []byte) bool { return len(name) <= 2 }

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// check fills in the extensions that are granted and refuses what this CA does not issue.
func (w *wanted) check(asked []pkix.Extension, strict bool) error {
	var seen []string
	for _, extension := range asked {
		if slices.Contains(seen, extension.Id.String()) {
			return refuse(cmp.FailBadCertTemplate, "extension %s is asked for twice", extension.Id)
		}
		seen = append(seen, extension.Id.String())
		if extension.Id.Equal(pki.OIDKeyUsage) {
			if err := w.grantKeyUsage(extension.Value, strict); err != nil {
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
		case extension.Id.Equal(oidSubjectKeyID),
			extension.Id.Equal(oidAuthorityKeyID): // every certificate has them, with values made here
		default:
			w.modified = "the extension " + extension.Id.String() + " is left out"
		}
	}
	if emptyName(w.subject) {
		w.subject = []byte{0x30, 0} // present even if empty
	}
	isNames := func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) }
	if emptyName(w.subject) && !slices.ContainsFunc(w.extensions, isNames) {
		return refuse(cmp.FailBadCertTemplate, "there is neither a subject nor a subject alternative name")
	}
	if w.usage == 0 { // as the ONAP server asks, as far as the key can do it
		w.usage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment
		w.usage &^= unfit(w.key)
	}
	return nil
}

// minRSABits is the smallest modulus that is certified.
const minRSABits = 2048

// checkKey must come before the proof of possession, which is computed with the key.
func checkKey(key crypto.PublicKey) error {
	modulus, isRSA := key.(*rsa.PublicKey)
	if cmp.CheckKey(key) == nil && (!isRSA || modulus.N.BitLen() >= minRSABits) {
		return nil
	}
	return refuse(cmp.FailBadAlg,
		"keys of this kind are not certified here: want RSA of %d to %d bits, ECDSA P-256, P-384 or P-521, or Ed25519",
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
			return false, refuse(cmp.FailBadCertTemplate,
				"basicConstraints asks for a CA certificate, want one for an end entity")
		}
		if constraints.MaxPathLen >= 0 { // RFC 5280, 4.2.1.9
			return false, refuse(cmp.FailBadCertTemplate,
				"basicConstraints has a pathLenConstraint of %d, which only CA certificates may have",
				constraints.MaxPathLen)
		}
		return true, nil
	case extension.Critical && !extension.Id.Equal(oidSubjectKeyID) && !extension.Id.Equal(oidAuthorityKeyID):
		return false, refuse(cmp.FailUnacceptedExtension, "extension %s is critical and not known here", extension.Id)
	}
	return false, nil
}

// unfit are the usages that a kind of key cannot have: RFC 8813, 3 and RFC 8410, 5.
func unfit(key crypto.PublicKey) x509.KeyUsage {
	switch key.(type) {
	case *ecdsa.PublicKey:
		return x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	case ed25519.PublicKey:
		return x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageKeyAgreement |
			x509.KeyUsageEncipherOnly | x509.KeyUsageDecipherOnly
	}
	return 0
}

// grantKeyUsage grants the usages that an end entity's key can have. Those that its kind cannot
// are left out, or refused when the CA is strict.
func (w *wanted) grantKeyUsage(value []byte, strict bool) error {
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(value, &bits); err != nil || len(rest) > 0 {
		return refuse(cmp.FailBadCertTemplate, "keyUsage is not a BIT STRING")
	}
	var asked x509.KeyUsage
	var left []string
	for bit, name := range pki.KeyUsages {
		if bits.At(bit) == 0 {
			continue
		}
		usage := x509.KeyUsage(1 << bit)
		asked |= usage
		if unfit(w.key)&usage != 0 {
			left = append(left, name)
		}
	}
	w.usage = asked &^ unfit(w.key)
	switch {
	case asked == 0:
		return refuse(cmp.FailBadCertTemplate, "keyUsage asks for nothing")
	case asked&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return refuse(cmp.FailBadCertTemplate,
			"keyUsage asks for the signing of certificates or CRLs, which is for authorities")
	case left == nil:
		return nil
	case strict || w.usage == 0:
		return refuse(cmp.FailBadCertTemplate, "keyUsage asks for %s, which a key of this kind cannot do",
			strings.Join(left, ", "))
	}
	w.modified = "the key usage " + strings.Join(left, ", ") + " is left out, which a key of this kind cannot do"
	return nil
}
