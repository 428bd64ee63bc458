// Package verify decides whether what a CA sent is what was asked for: the certificate holds our
// key and the requested names, its chain is in order and leads to one of the certificates sent
// along to be trusted (RFC 5280, section 6, by way of crypto/x509), and the dates are sane.
//
// It does not ask for revocation, does not check which usages the CA
// granted, and does not decide whether the trusted certificates
// deserve that: they come from the same, authenticated, CertService.
package verify

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Skew is how far a certificate's start may lie in the future by this
// machine's clock. There is no such tolerance at the end: a start that
// is too early heals by waiting, an expired certificate does not.
const Skew = 5 * time.Minute

// maxChain is how many certificates a chain may have: crypto/x509 checks a hundred signatures for a path.
const maxChain = 100

// Result is what may be published.
type Result struct {
	Chain    []*x509.Certificate // leaf first, without the root, each once
	Trusted  []*x509.Certificate // in the order received, each once, then roots that stood in the chain
	Warnings []string            // one sentence each, for the log
}

// Error is a certificate that is not the one asked for. It reads "Check: want Want, got Got".
type Error struct {
	Check     string // what is wrong, as a clause
	Want, Got string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: want %s, got %s", e.Check, e.Want, e.Got) }

// NamesError is a certificate that has other names than the requested ones. It wraps the *Error.
type NamesError struct{ Err *Error }

func (e *NamesError) Error() string { return e.Err.Error() }

// Unwrap gives the Error.
func (e *NamesError) Unwrap() error { return e.Err }

// Answer checks the chain and the trusted certificates that came for the request. Its error is, or
// wraps, an *Error. The slices given are not changed.
func Answer(csr *x509.CertificateRequest, chain, trusted []*x509.Certificate, now time.Time) (Result, error) {
	if len(chain) == 0 {
		return Result{}, &Error{"the answer holds no certificate", "the new one and its signers", "an empty chain"}
	}
	chain, trusted = withoutDuplicates(chain), withoutDuplicates(trusted)
	chain, trusted = moveRoots(chain, trusted)
	if len(chain) > maxChain {
		return Result{}, &Error{"the chain is too long",
			fmt.Sprintf("at most %d certificates without the root", maxChain), fmt.Sprint(len(chain))}
	}
	if err := checkUsable(chain); err != nil {
		return Result{}, err
	}
	if len(trusted) == 0 {
		return Result{}, &Error{"the answer holds no trusted certificate",
			"at least the root of the chain", "an empty list"}
	}
	r := Result{Chain: chain, Trusted: trusted}
	leaf := chain[0]
	if err := checkKey(csr.PublicKey, chain); err != nil {
		return Result{}, err
	}
	if leaf.BasicConstraintsValid && leaf.IsCA {
		return Result{}, &Error{"the certificate is one of a CA", "CA:FALSE", "CA:TRUE for " + dn(leaf.RawSubject)}
	}
	warnings, err := checkNames(csr, leaf)
	if err != nil {
		return Result{}, err
	}
	r.Warnings = append(r.Warnings, warnings...)
	if err := checkOrder(chain); err != nil {
		return Result{}, err
	}
	if warnings, err = checkDates(chain, now); err != nil {
		return Result{}, err
	}
	r.Warnings = append(r.Warnings, warnings...)
	if warnings, err = checkAnchor(chain, trusted, now); err != nil {
		return Result{}, err
	}
	r.Warnings = append(append(r.Warnings, warnings...), unusable(trusted)...)
	return r, nil
}

// checkUsable refuses a chain with certificates that cannot be verified, or that are too costly to
// compute with, before anything is. Of the trusted ones, those are published and verify nothing.
func checkUsable(chain []*x509.Certificate) error {
	for i, cert := range chain {
		if err := pki.Unusable(cert); err != nil {
			return &Error{fmt.Sprintf("certificate %d of the chain can verify nothing", i+1),
				"one with a key and extensions that are supported",
				fmt.Sprintf("%s: %v", dn(cert.RawSubject), err)}
		}
	}
	return nil
}

// unusable warns of trusted certificates that are passed on, but were not used.
func unusable(trusted []*x509.Certificate) (warnings []string) {
	for i, cert := range trusted {
		if err := pki.Unusable(cert); err != nil {
			warnings = append(warnings,
				fmt.Sprintf("trusted certificate %d, %s, is published, but can verify nothing here: %v", i+1,
					dn(cert.RawSubject), err))
		}
	}
	return warnings
}

func withoutDuplicates(certs []*x509.Certificate) []*x509.Certificate {
	var once []*x509.Certificate
	seen := make(map[string]bool, len(certs))
	for _, cert := range certs {
		if !seen[string(cert.Raw)] {
			seen[string(cert.Raw)] = true
			once = append(once, cert)
		}
	}
	return once
}

// moveRoots takes self-signed certificates off the end of the chain: a root belongs to the
// anchors, and CertService promises a chain without it. One that can verify nothing here is
// recognized by its names.
func moveRoots(chain, trusted []*x509.Certificate) (shorter, more []*x509.Certificate) {
	for len(chain) > 1 {
		last := chain[len(chain)-1]
		unreadable := pki.Unusable(last) != nil && bytes.Equal(last.RawSubject, last.RawIssuer)
		if !unreadable && !pki.SelfSigned(last) {
			break
		}
		chain = chain[:len(chain)-1]
		if !slices.ContainsFunc(trusted, last.Equal) {
			trusted = append(trusted, last)
		}
	}
	return chain, trusted
}

func checkKey(want crypto.PublicKey, chain []*x509.Certificate) error {
	if pki.SameKey(want, chain[0].PublicKey) {
		return nil
	}
	got := keyText(chain[0].PublicKey)
	for i, cert := range chain {
		if pki.SameKey(want, cert.PublicKey) {
			got = fmt.Sprintf("%s, while certificate %d of the chain has ours: the chain is out of order", got, i+1)
		}
	}
	return &Error{"the certificate's public key does not match the request's", keyText(want), got}
}

// checkOrder wants each certificate followed by its signer, by name and by signature.
func checkOrder(chain []*x509.Certificate) error {
	for i := range len(chain) - 1 {
		cert, signer := chain[i], chain[i+1]
		check := fmt.Sprintf("the chain is broken between certificates %d and %d", i+1, i+2)
		if !bytes.Equal(cert.RawIssuer, signer.RawSubject) {
			want := "the issuer " + dn(cert.RawIssuer)
			for j, other := range chain {
				if j != i && bytes.Equal(cert.RawIssuer, other.RawSubject) {
					want += fmt.Sprintf(", which is certificate %d", j+1)
					break
				}
			}
			return &Error{check, want, dn(signer.RawSubject)}
		}
		if algorithm := pki.UnsupportedSignature(cert); algorithm != "" {
			return &Error{check, "a signature by " + dn(signer.RawSubject) + " with SHA-256 or stronger",
				algorithm + ", which is not accepted, on " + dn(cert.RawSubject)}
		}
		if err := cert.CheckSignatureFrom(signer); err != nil {
			return &Error{check, "a signature by " + dn(signer.RawSubject),
				fmt.Sprintf("one that does not verify (%v)", err)}
		}
	}
	return nil
}

// checkAnchor wants a path from the leaf to a trusted certificate, which need not be a root.
func checkAnchor(chain, trusted []*x509.Certificate, now time.Time) (warnings []string, err error) {
	if slices.ContainsFunc(trusted, chain[0].Equal) {
		return nil, &Error{"the certificate is its own trust anchor", "one that a CA signed",
			dn(chain[0].RawSubject) + " in both lists"}
	}
	for i, at := range moments(append(slices.Clone(chain), trusted...), now) {
		_, verr := pki.VerifyPath(chain[0], pki.PathOptions{Anchors: trusted, Others: chain[1:], At: at})
		if verr == nil {
			if i > 0 && !anyStartsAfter(chain, now) {
				warnings = append(warnings,
					fmt.Sprintf(
						"the trust anchor becomes valid only at %s, %s from now: this machine's "+
							"clock is behind the CA's, which is tolerated up to %s", pki.Stamp(at),
						at.Sub(now).Round(time.Second), Skew))
			}
			return append(warnings, warnExpired(trusted, now)...), nil
		}
		if err == nil {
			err = anchorError(chain, trusted, verr, now)
		}
	}
	return nil, err
}

func anchorError(chain, trusted []*x509.Certificate, err error, now time.Time) error {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return &Error{"a certificate on the path to the trust anchor is not valid now",
			"a validity that includes " + pki.Stamp(now), validity(invalid.Cert)}
	}
	top := chain[len(chain)-1]
	got := fmt.Sprintf("%s (%v)", dnList(trusted), err)
	return &Error{"the chain does not verify to a trusted certificate",
		fmt.Sprintf("a path from %s, issued by %s, to one of them", dn(top.RawSubject), dn(top.RawIssuer)), got}
}
