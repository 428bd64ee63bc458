package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The labels of certificates: today's, the one of old programs (RFC 7468, 5.1), and OpenSSL's for a certificate that
// trust settings follow.
const (
	labelCertificate     = "CERTIFICATE"
	labelX509Certificate = "X509 CERTIFICATE"
	labelTrusted         = "TRUSTED CERTIFICATE"
)

// IsCertificate says whether the block's label is that of a certificate.
func (b PEMBlock) IsCertificate() bool {
	return slices.Contains([]string{labelCertificate, labelX509Certificate, labelTrusted}, b.Label)
}

// Certificate reads the certificate of a block for which IsCertificate is true, as Parse does.
func (b PEMBlock) Certificate() (*x509.Certificate, error) {
	if b.Err != nil {
		return nil, b.Err
	}
	if b.Label != labelTrusted {
		return Parse(b.Bytes)
	}
	rest := cryptobyte.String(b.Bytes)
	var der cryptobyte.String
	if !rest.ReadASN1Element(&der, cbasn1.SEQUENCE) {
		return nil, errors.New("it does not begin with a certificate")
	}
	if err := checkTrust(rest); err != nil {
		return nil, err
	}
	return Parse(der)
}

// PEMCertificates reads all the certificates of a file, in their order. Other blocks are passed over. What is wrong
// with a certificate that cannot be read is among the faults, each of which names the block and its line. The error is
// for a file that is not read at all.
func PEMCertificates(data []byte) (certs []*x509.Certificate, faults []error, err error) {
	blocks, err := PEMBlocks(data)
	if err != nil {
		return nil, nil, err
	}
	for _, b := range blocks {
		if !b.IsCertificate() && b.Label != "" {
			continue
		}
		cert, err := b.Certificate()
		if err != nil {
			faults = append(faults, fmt.Errorf("%v: %w", b, err))
			continue
		}
		certs = append(certs, cert)
	}
	return certs, faults, nil
}

var (
	oidServerAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	oidAnyUsage   = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
)

// checkTrust reads what OpenSSL appends to a TRUSTED CERTIFICATE: the usages that it is trusted for and those that it
// is rejected for. Bundles of distributions list distrusted CAs this way, so a rejection must not be lost.
func checkTrust(aux cryptobyte.String) error {
	if aux.Empty() {
		return nil
	}
	var settings, trusted, rejected cryptobyte.String
	var hasTrusted, hasRejected bool
	if !aux.ReadASN1(&settings, cbasn1.SEQUENCE) || !aux.Empty() ||
		!settings.ReadOptionalASN1(&trusted, &hasTrusted, cbasn1.SEQUENCE) ||
		!settings.ReadOptionalASN1(&rejected, &hasRejected, cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return errors.New("its trust settings cannot be read")
	}
	allowed, err := namesTLS(trusted)
	if err != nil {
		return err
	}
	refused, err := namesTLS(rejected)
	if err != nil {
		return err
	}
	if refused || hasTrusted && !allowed {
		return errors.New("its trust settings (openssl x509 -trustout) do not trust it for TLS")
	}
	return nil
}

// namesTLS says whether a list of usages has one of TLS.
func namesTLS(list cryptobyte.String) (bool, error) {
	found := false
	for !list.Empty() {
		var usage asn1.ObjectIdentifier
		if !list.ReadASN1ObjectIdentifier(&usage) {
			return false, errors.New("its trust settings cannot be read")
		}
		found = found || usage.Equal(oidServerAuth) || usage.Equal(oidClientAuth) || usage.Equal(oidAnyUsage)
	}
	return found, nil
}
