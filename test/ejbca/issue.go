package ejbca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}

	clientAuth      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	serverAuth      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	emailProtection = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}
)

// profile is a certificate profile: usages, whatever was asked for.
type profile struct {
	usage    asn1.BitString
	extended []asn1.ObjectIdentifier
}

// digitalSignature and keyEncipherment, without and with nonRepudiation.
var (
	serverUsage = asn1.BitString{Bytes: []byte{0xa0}, BitLength: 3}
	userUsage   = asn1.BitString{Bytes: []byte{0xe0}, BitLength: 3}
)

var profiles = map[string]profile{
	ENDUSER: {userUsage, []asn1.ObjectIdentifier{clientAuth, emailProtection}},
	SERVER:  {serverUsage, []asn1.ObjectIdentifier{serverAuth}},
	Custom:  {userUsage, []asn1.ObjectIdentifier{clientAuth, emailProtection, serverAuth}},
}

// issue signs a certificate with the extensions in EJBCA's order.
func (s *Server) issue(entity Entity, key any, p profile) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key: %w", err)
	}
	id := sha1.Sum(spki)
	var extensions []pkix.Extension
	add := func(oid asn1.ObjectIdentifier, critical bool, value any) {
		der, isDER := value.([]byte)
		if !isDER && err == nil {
			der, err = asn1.Marshal(value)
		}
		extensions = append(extensions, pkix.Extension{Id: oid, Critical: critical, Value: der})
	}
	add(oidBasicConstraints, true, []byte{0x30, 0})
	issuer := s.issuing.SubjectKeyId
	add(oidAuthorityKeyID, false, append([]byte{0x30, byte(len(issuer) + 2), 0x80, byte(len(issuer))}, issuer...))
	if entity.Names != nil {
		add(oidSubjectAltName, false, entity.Names)
	}
	add(oidExtKeyUsage, false, p.extended)
	add(oidSubjectKeyID, false, append([]byte{4, byte(len(id))}, id[:]...))
	add(oidKeyUsage, true, p.usage)
	if err != nil {
		return nil, fmt.Errorf("encoding extensions: %w", err)
	}
	now := s.config.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), RawSubject: entity.Subject, ExtraExtensions: extensions,
		NotBefore: now.Add(-10 * time.Minute), NotAfter: now.Add(s.config.Validity),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.issuing, key, s.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func serial() *big.Int {
	bytes := make([]byte, 20)
	rand.Read(bytes) // never fails
	bytes[0] = bytes[0]&0x7f | 0x40
	return new(big.Int).SetBytes(bytes)
}

// makeCA makes the CA and, when it is a sub-CA, the root above it.
func (s *Server) makeCA() (err error) {
	if !s.config.SubCA {
		s.issuing, s.key, err = s.authority(s.config.Subject, nil, nil)
		s.root = s.issuing
		return err
	}
	var rootKey *ecdsa.PrivateKey
	if s.root, rootKey, err = s.authority("CN=Compose CA,O=Example", nil, nil); err == nil {
		s.issuing, s.key, err = s.authority(s.config.Subject, s.root, rootKey)
	}
	return err
}

// authority makes a CA's key and certificate; without a parent it is self-signed.
func (s *Server) authority(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (
	*x509.Certificate, *ecdsa.PrivateKey, error) {
	subject, err := cmp.ParseDN(name)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := s.config.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), RawSubject: subject, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, key, err
}
