package cmp

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// verifyChain returns the best chain from a certificate to an anchor
// (RFC 5280, 6): one that ends in a self-signed certificate where
// there is one, and of those the shortest. It includes both ends.
func verifyChain(leaf *x509.Certificate, anchors, others []*x509.Certificate,
	now time.Time) ([]*x509.Certificate, error) {
	// A root that was sent along again would be tried twice, at the price of its signatures. Other
	// anchors may well be on the way to a root.
	between := slices.DeleteFunc(slices.Clone(others), func(c *x509.Certificate) bool {
		return bytes.Equal(c.RawSubject, c.RawIssuer) && slices.ContainsFunc(anchors, c.Equal)
	})
	// Key usages are for the requester to check. Only the signatures matter here.
	chains, err := pki.VerifyPath(leaf, pki.PathOptions{Anchors: anchors, Others: between, At: now})
	if err != nil {
		return nil, err
	}
	if len(chains) == 1 {
		return chains[0], nil
	}
	return slices.MinFunc(chains, func(a, b []*x509.Certificate) int {
		if x, y := pki.SelfSigned(a[len(a)-1]), pki.SelfSigned(b[len(b)-1]); x != y {
			if x {
				return -1
			}
			return 1
		}
		return len(a) - len(b)
	}), nil
}

// authorities returns the CA certificates among some (RFC 5280,
// 4.2.1.9). Those of versions 1 and 2 have no extension that says so;
// old roots among them are recognised by their signature by themselves.
func (k *known) authorities(certificates []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(certificates), func(c *x509.Certificate) bool {
		return !c.IsCA && (c.Version >= 3 || !k.selfSigned(c))
	})
}

// roots returns those of the authorities that are self-signed.
func (k *known) roots(certificates []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(k.authorities(certificates), func(c *x509.Certificate) bool { return !k.selfSigned(c) })
}

// chain builds the chain of an issued certificate and the roots to trust. Anchors are those
// configured, and the CA certificates in caPubs when, and only when, a MAC vouches for them (RFC
// 9810, 5.3.2 and 8.9): a server that sends the issued certificate there, too, makes it no anchor
// of itself. extraCerts serve as intermediates; nothing vouches for them (RFC 9810, 5.1).
func (t *transaction) chain(leaf *x509.Certificate, m *PKIMessage) (chain, trusted []*x509.Certificate, err error) {
	known := t.c.known
	caPubs := known.authorities(known.available(m.Body.Content.(*CertRepMessage).CAPubs))
	others := append(known.available(m.ExtraCerts), caPubs...)
	if t.peer != nil {
		others = append(others, t.peer) // often the CA itself
	}
	anchors := slices.Clone(t.c.cfg.TrustAnchors)
	if t.macVerified {
		anchors = append(anchors, caPubs...)
	}
	at := t.c.cfg.Now()
	if leaf.NotBefore.After(at) {
		at = leaf.NotBefore // checkValidity has allowed for the difference of the clocks
	}
	path, err := known.verifyChain(leaf, anchors, others, at)
	if err != nil && t.c.cfg.ResponseTrust == ResponseTrustONAP {
		roots := known.roots(others)
		if path, err = known.verifyChain(leaf, roots, others, at); err == nil {
			t.warn("root %q is trusted only because response trust is %q: it came with the "+
				"answer and nothing vouches for it",
				pki.DN(path[len(path)-1].RawSubject), ResponseTrustONAP)
		}
	}
	if err != nil {
		got := fmt.Sprintf("%q issued by %q, which does not verify (%v)", pki.DN(leaf.RawSubject),
			pki.DN(leaf.RawIssuer), err)
		if len(anchors) == 0 {
			got = fmt.Sprintf("%q issued by %q, and no trust anchor", pki.DN(leaf.RawSubject), pki.DN(leaf.RawIssuer))
		}
		return nil, nil, &CheckError{Check: "chain", Got: got,
			Want: "a chain to a trust anchor, or to a certificate in caPubs under a MAC"}
	}
	trusted = path[len(path)-1:]
	if t.macVerified {
		for _, root := range caPubs {
			if !slices.ContainsFunc(trusted, root.Equal) && known.selfSigned(root) {
				trusted = append(trusted, root)
			}
		}
		trusted = append(trusted, t.handedOn(m.Body.Content.(*CertRepMessage).CAPubs)...)
	}
	return path[:len(path)-1], slices.Clip(trusted), nil
}

// handedOn are roots in caPubs that cannot verify anything here, for a negative serial number or a
// key of an unsupported kind. No chain is built with them, but other programs may understand them.
// Only their names are checked.
func (t *transaction) handedOn(caPubs [][]byte) (roots []*x509.Certificate) {
	for _, der := range caPubs {
		if root, err := t.c.known.certificate(der); err == nil && pki.Unusable(root) == nil {
			continue
		}
		root, err := pki.Parse(der)
		if err != nil || !bytes.Equal(root.RawSubject, root.RawIssuer) || !root.IsCA && root.Version >= 3 {
			continue
		}
		if err := pki.Unusable(root); err != nil && !slices.ContainsFunc(roots, root.Equal) {
			t.log.Warn("a root in caPubs cannot verify anything here; it is passed on unchanged",
				"root", show(pki.DN(root.RawSubject)), "error", show(err.Error()))
			roots = append(roots, root)
		}
	}
	return roots
}

// vouchedRoots returns the self-signed CA certificates in caPubs of an answer
// whose MAC was verified: the CA, and not an attacker on the path to it, says
// that they are roots (RFC 9810, 5.3.2 and 8.9). It is nil for any other
// answer. extraCerts never count: no one vouches for them (RFC 9810, 5.1).
func (t *transaction) vouchedRoots(answer *PKIMessage) []*x509.Certificate {
	if !t.macVerified {
		return nil
	}
	return t.c.known.roots(t.c.known.available(answer.Body.Content.(*CertRepMessage).CAPubs))
}
