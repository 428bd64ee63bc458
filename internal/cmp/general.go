package cmp

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// GetCACertificates asks for the CA's certificates, genm with id-it-caCerts (RFC 9483, 4.3.1). They are
// as trustworthy as the answer's protection; nothing is checked of them but that they parse. Empty means
// that the CA has none to give.
func (c *Client) GetCACertificates(ctx context.Context) ([]*x509.Certificate, error) {
	value, err := c.general(ctx, InfoTypeAndValue{Type: OIDCACerts}, OIDCACerts)
	if err != nil || value == nil {
		return nil, err
	}
	ders, err := ParseCACerts(value)
	if err != nil {
		return nil, &CheckError{Check: "caCerts", Got: err.Error(), Want: "a list of certificates"}
	}
	certificates := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		certificate, err := parseGiven("caCerts", der)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

// GetRootCAUpdate asks for the successor of a root certificate, genm with id-it-rootCaCert (RFC 9483,
// 4.3.2). It returns nil when there is none. The successor is vouched for by the old root: there is a
// certificate of its key and name signed with the old root's key.
func (c *Client) GetRootCAUpdate(ctx context.Context, root *x509.Certificate) (*x509.Certificate, error) {
	value, err := c.general(ctx, InfoTypeAndValue{Type: OIDRootCACert, Value: root.Raw}, OIDRootCAKeyUpdate)
	if err != nil || value == nil {
		return nil, err
	}
	update, err := ParseRootCAKeyUpdate(value)
	if err != nil {
		return nil, &CheckError{Check: "rootCaKeyUpdate", Got: err.Error(), Want: "a RootCaKeyUpdateValue"}
	}
	return checkRootUpdate(update, root, c.cfg.Now())
}

// checkRootUpdate: newWithNew signs itself, and newWithOld has its key and is signed by the old root, and
// both are valid now (RFC 9810, 4.4 and 5.3.19.15).
func checkRootUpdate(update RootCAKeyUpdate, old *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	newWithNew, err := parseGiven("newWithNew", update.NewWithNew)
	if err != nil {
		return nil, err
	}
	if update.NewWithOld == nil {
		return nil, &CheckError{Check: "newWithOld", Got: "none", Want: "the new key signed with the old one"}
	}
	newWithOld, err := parseGiven("newWithOld", update.NewWithOld)
	if err != nil {
		return nil, err
	}
	if !newWithNew.IsCA || !pki.SelfSigned(newWithNew) {
		return nil, &CheckError{Check: "newWithNew", Got: fmt.Sprintf("%q, which is no root", newWithNew.Subject), Want: "a self-signed CA certificate"}
	}
	if now.Before(newWithNew.NotBefore) || now.After(newWithNew.NotAfter) {
		return nil, &CheckError{Check: "newWithNew", Got: "one that is not valid now", Want: "a valid root"}
	}
	if !pki.SameKey(newWithNew.PublicKey, newWithOld.PublicKey) || !SameName(newWithNew.RawSubject, newWithOld.RawSubject) {
		return nil, &CheckError{Check: "newWithOld", Got: "another key or name than newWithNew", Want: "the same"}
	}
	if _, err := verifyChain(newWithOld, []*x509.Certificate{old}, nil, now); err != nil {
		return nil, &CheckError{Check: "newWithOld", Got: "one that does not verify (" + err.Error() + ")", Want: "one signed by the root it succeeds"}
	}
	return newWithNew, nil
}

func parseGiven(what string, der []byte) (*x509.Certificate, error) {
	certificate, err := parseCertificate(der)
	if err != nil {
		return nil, &CheckError{Check: what, Got: "a certificate that cannot be read (" + err.Error() + ")", Want: "an X.509 certificate"}
	}
	return certificate, nil
}

// general sends one item in genm and returns the value of the item in genp, which is of the type wanted;
// nil means that it has none (RFC 9483, 4.3).
func (c *Client) general(ctx context.Context, ask InfoTypeAndValue, want asn1.ObjectIdentifier) ([]byte, error) {
	t := c.begin(nil, nil)
	defer t.end()
	answer, err := t.exchange(ctx, PKIBody{BodyGenM, GeneralContent{ask}})
	if err != nil {
		return nil, err
	}
	content := answer.Body.Content.(GeneralContent)
	if len(content) == 0 {
		return nil, nil
	}
	value, found := content.Value(want)
	if !found {
		return nil, &CheckError{Check: "genp", Got: "infoType " + content[0].Type.String(), Want: want.String()}
	}
	return value, nil
}
