package cmp

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Request is what a certificate is asked for with.
type Request struct {
	CSR *x509.CertificateRequest // parsed: subject, names, key usages and public key are taken from it
	Key crypto.Signer            // the CSR's key, for the proof of possession
}

// Result is what came of a request.
type Result struct {
	Chain   []*x509.Certificate // leaf first, each next one its signer, without the root
	Trusted []*x509.Certificate // roots, the signing one first
	// Vouched are the self-signed CA certificates in caPubs of an answer whose MAC was verified; see vouchedRoots.
	Vouched []*x509.Certificate
}

// Initialize sends an initialization request, ir (RFC 9483, 4.1.1).
func (c *Client) Initialize(ctx context.Context, r Request) (Result, error) {
	return c.request(ctx, BodyIR, r)
}

// Certify sends a certification request, cr (RFC 9483, 4.1.2).
func (c *Client) Certify(ctx context.Context, r Request) (Result, error) {
	return c.request(ctx, BodyCR, r)
}

func (c *Client) request(ctx context.Context, kind BodyType, r Request) (Result, error) {
	message, err := c.certReqMsg(r, nil)
	if err != nil {
		return Result{}, err
	}
	t := c.begin(r.CSR.RawSubject, nil, r.CSR.PublicKey)
	return t.enrol(ctx, PKIBody{kind, CertReqMessages{message}}, r.CSR)
}

// UpdateKey sends a key update request, kur, signed with the key of the certificate to be replaced
// (RFC 9483, 4.1.3), whatever protection the client is configured with.
func (c *Client) UpdateKey(ctx context.Context, r Request, old Signer) (Result, error) {
	if err := old.check(); err != nil {
		return Result{}, err
	}
	message, err := c.certReqMsg(r, old.Certificate)
	if err != nil {
		return Result{}, err
	}
	t := c.begin(r.CSR.RawSubject, &old, r.CSR.PublicKey)
	return t.enrol(ctx, PKIBody{BodyKUR, CertReqMessages{message}}, r.CSR)
}

// CertifyPKCS10 sends the CSR as it is, p10cr (RFC 9483, 4.1.4). Its own signature is the proof of
// possession, so the key is not needed.
func (c *Client) CertifyPKCS10(ctx context.Context, csr *x509.CertificateRequest) (Result, error) {
	if err := checkParsed(csr); err != nil {
		return Result{}, err
	}
	t := c.begin(csr.RawSubject, nil, csr.PublicKey)
	return t.enrol(ctx, PKIBody{BodyP10CR, CertificationRequest(csr.Raw)}, csr)
}

// certReqMsg makes the CRMF request with certReqId 0 (RFC 9483, 4.1.1), and with the oldCertId control when
// a certificate is replaced (RFC 9483, 4.1.3).
func (c *Client) certReqMsg(r Request, old *x509.Certificate) (CertReqMsg, error) {
	if err := checkParsed(r.CSR); err != nil {
		return CertReqMsg{}, err
	}
	if r.Key == nil {
		return CertReqMsg{}, errors.New("request lacks its key")
	}
	if !pki.SameKey(r.Key.Public(), r.CSR.PublicKey) {
		return CertReqMsg{}, errors.New("key does not belong to the certificate signing request")
	}
	issuer := c.issuer
	if old != nil {
		issuer = old.RawIssuer // the CA that knows it; some find it by this name only (EJBCA)
	}
	m := CertReqMsg{CertReq: CertRequest{CertTemplate: CertTemplate{
		Issuer:     issuer,
		Subject:    r.CSR.RawSubject,
		PublicKey:  r.CSR.RawSubjectPublicKeyInfo,
		Extensions: templateExtensions(r.CSR),
	}}}
	if old != nil {
		id := CertID{Issuer: DirectoryName(old.RawIssuer), SerialNumber: old.SerialNumber}
		if err := m.CertReq.AddOldCertID(id); err != nil {
			return CertReqMsg{}, err
		}
	}
	if err := m.SignPOPO(r.Key); err != nil {
		return CertReqMsg{}, err
	}
	return m, nil
}

var (
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSAN         = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// defaultExtKeyUsage is asked for where the CSR asks for none, as the ONAP server did:
// id-kp-clientAuth 1.3.6.1.5.5.7.3.2, id-kp-serverAuth 1.3.6.1.5.5.7.3.1
var defaultExtKeyUsage = pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 20,
	6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}}

// templateExtensions returns key usage, extended key usage and names for the template. Nothing else of a
// CSR is passed on. Where it has no key usage, the one that fits the kind of key is asked for.
func templateExtensions(csr *x509.CertificateRequest) []pkix.Extension {
	find := func(id asn1.ObjectIdentifier) int {
		return slices.IndexFunc(csr.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
	}
	extensions := []pkix.Extension{pki.LeafKeyUsage(csr.PublicKey), defaultExtKeyUsage}
	for i, wanted := range extensions {
		if found := find(wanted.Id); found >= 0 {
			extensions[i] = csr.Extensions[found]
		}
	}
	if found := find(oidSAN); found >= 0 {
		extensions = append(extensions, csr.Extensions[found])
	}
	return extensions
}

// checkParsed refuses a CSR that was made by hand instead of parsed.
func checkParsed(csr *x509.CertificateRequest) error {
	if csr == nil || len(csr.Raw) == 0 || csr.PublicKey == nil {
		return errors.New("certificate signing request is missing or was not parsed")
	}
	return nil
}
