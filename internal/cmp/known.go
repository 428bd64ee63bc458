package cmp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// known remembers what is the same in each answer of a CA, and must not be worked out again for each: its
// certificates, which of them are self-signed, and the path from the issuing one to an anchor. All of that follows from
// the bytes of certificates, so that a peer can fill it, and gain nothing by that. It may be used from several
// goroutines.
type known struct {
	mu           sync.Mutex
	certificates map[string]*knownCertificate // by their DER
	paths        []*knownPath
	issuer       []byte // the latest name that is the configured issuer's, in another encoding maybe
}

type knownCertificate struct {
	*x509.Certificate
	// selfSigned is pki.SelfSigned, found by the first who asks.
	selfSigned func() bool
}

// knownPath is the path from an issuer of leaves to an anchor, both included.
type knownPath struct {
	anchors, others []*x509.Certificate // that it was chosen from
	path            []*x509.Certificate
	issuer          *x509.CertPool // of the first of them
	from, to        time.Time      // when all of its certificates are valid, and pathLifetime is not over
}

// Bounds of what is remembered for one server. The certificates of a CA are few, and have 1 to 3 KiB.
const (
	maxKnown     = 32
	maxKnownSize = 16 << 10 // of one certificate, in bytes
	maxPaths     = 8
)

// pathLifetime is how long a path is taken without a look at the others that there may be by then.
const pathLifetime = time.Minute

func newKnown() *known { return &known{certificates: map[string]*knownCertificate{}} }

// certificate is parseCertificate for one that is likely to come again: a CA's. Those who ask for the same bytes share
// it, and must not change it.
func (k *known) certificate(der []byte) (*x509.Certificate, error) {
	k.mu.Lock()
	found := k.certificates[string(der)]
	k.mu.Unlock()
	if found != nil {
		return found.Certificate, nil
	}
	own := bytes.Clone(der) // a certificate keeps its DER, and that all of the answer around it
	certificate, err := parseCertificate(own)
	if err != nil || len(der) > maxKnownSize || isLeaf(certificate) {
		return certificate, err // also of leaves that come along, of which each is another one
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.certificates) >= maxKnown {
		clear(k.certificates)
	}
	k.certificates[string(own)] = &knownCertificate{certificate,
		sync.OnceValue(func() bool { return pki.SelfSigned(certificate) })}
	return certificate, nil
}

// selfSigned is pki.SelfSigned.
func (k *known) selfSigned(certificate *x509.Certificate) bool {
	k.mu.Lock()
	found := k.certificates[string(certificate.Raw)]
	k.mu.Unlock()
	if found == nil {
		return pki.SelfSigned(certificate)
	}
	return found.selfSigned()
}

// sameIssuer says whether a name is that of the configured issuer.
func (k *known) sameIssuer(name, configured []byte) bool {
	k.mu.Lock()
	same := k.issuer != nil && bytes.Equal(name, k.issuer)
	k.mu.Unlock()
	if same {
		return true
	}
	if same = pki.SameName(name, configured); same {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.issuer = bytes.Clone(name)
	}
	return same
}

// verifyChain is the function of that name. Where the path of the leaf's issuer was verified before, only the leaf is
// verified, by the issuer.
func (k *known) verifyChain(leaf *x509.Certificate, anchors, others []*x509.Certificate,
	now time.Time) ([]*x509.Certificate, error) {
	between := others
	if slices.ContainsFunc(others, isLeaf) {
		between = slices.DeleteFunc(slices.Clone(others), isLeaf)
	}
	if known := k.path(leaf, anchors, between, now); known != nil {
		chains, err := pki.VerifyPath(leaf, pki.PathOptions{Pool: known.issuer, At: now})
		if err == nil && len(chains) == 1 && len(chains[0]) == 2 {
			return append([]*x509.Certificate{leaf}, known.path...), nil
		}
		// Another issuer of that name, or an error that should tell of all of them.
	}
	chain, err := verifyChain(leaf, anchors, others, now)
	if err == nil {
		k.learn(chain[1:], anchors, between, now)
	}
	return chain, err
}

// isLeaf says whether a certificate cannot be between a leaf and an anchor. Those of versions 1 and 2 have no extension
// that says so.
func isLeaf(c *x509.Certificate) bool { return !c.IsCA && c.Version >= 3 }

// path is the one of the leaf's issuer, by the same certificates; nil where there is none.
func (k *known) path(leaf *x509.Certificate, anchors, others []*x509.Certificate,
	now time.Time) *knownPath {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.paths {
		if bytes.Equal(p.path[0].RawSubject, leaf.RawIssuer) && !now.Before(p.from) && !now.After(p.to) &&
			slices.EqualFunc(p.anchors, anchors, (*x509.Certificate).Equal) &&
			slices.EqualFunc(p.others, others, (*x509.Certificate).Equal) {
			return p
		}
	}
	return nil
}

// learn remembers the path of an issuer, if it says nothing about what is issued below it.
func (k *known) learn(path, anchors, others []*x509.Certificate, now time.Time) {
	if len(path) == 0 || slices.ContainsFunc(path, constrains) {
		return
	}
	p := &knownPath{issuer: x509.NewCertPool(), anchors: slices.Clone(anchors), others: slices.Clone(others),
		path: slices.Clone(path), from: now, to: now.Add(pathLifetime)}
	p.issuer.AddCert(path[0])
	for _, certificate := range path {
		if certificate.NotAfter.Before(p.to) {
			p.to = certificate.NotAfter
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.paths) >= maxPaths {
		k.paths = nil
	}
	k.paths = append(k.paths, p)
}

// plainExtensions are those of CA certificates that say nothing about the subjects and policies of what is issued
// further below (RFC 5280, 4.2): subjectKeyIdentifier, keyUsage, basicConstraints, cRLDistributionPoints,
// certificatePolicies, authorityKeyIdentifier, extKeyUsage (no usage is asked for here), authorityInfoAccess. The
// length of a path below a CA is the same for all leaves of one issuer.
var plainExtensions = []asn1.ObjectIdentifier{{2, 5, 29, 14}, {2, 5, 29, 15}, {2, 5, 29, 19}, {2, 5, 29, 31},
	{2, 5, 29, 32}, {2, 5, 29, 35}, {2, 5, 29, 37}, {1, 3, 6, 1, 5, 5, 7, 1, 1}}

// constrains says whether a CA may constrain what is issued below it, such as by names: then each leaf has to be
// verified with its whole path.
func constrains(authority *x509.Certificate) bool {
	for _, extension := range authority.Extensions {
		if !slices.ContainsFunc(plainExtensions, extension.Id.Equal) {
			return true
		}
	}
	return false
}
