package certservice

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
)

// clientVerifier verifies client certificates for each request, not once in the handshake: for the
// answer 401 that the API promises, and so that an expired certificate or a replaced truststore
// also ends connections kept alive and sessions resumed. It remembers which chains verified, since
// clients come back with the same one and the signatures in it are half the cost of an enrolment.
type clientVerifier struct {
	revocations *Revocations // nil: no CRLs

	mu       sync.Mutex
	basis    basis // that the chains verified against
	verified map[digest]window
}

// basis is what trust in a chain rests on. When it is another, no chain is remembered.
type basis struct {
	roots *x509.CertPool
	crls  *crlSet
}

// window is the time in which a chain that verified stays valid: when all its certificates are, and
// the CRLs that they are not in.
type window struct{ from, to time.Time }

// maxVerified bounds how many chains are remembered. Only
// chains that verified are, so a stranger cannot fill it.
const maxVerified = 4096

// maxClientChain bounds the certificates of a client, the leaf included. Any client may send 256
// KiB of them, such as 170 authorities of one name with large keys, each of which is tried: that
// took 0.2 to 0.4 s. Real chains have two or three.
const maxClientChain = 10

// verify returns the client's certificate, and a reason when it is missing
// does not chain to the roots, or was revoked; nil roots trust no one. That
// the client holds the certificate's key is what the TLS handshake proved.
func (v *clientVerifier) verify(state *tls.ConnectionState, roots *x509.CertPool,
	now time.Time) (*x509.Certificate, string) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil, "client certificate is missing"
	}
	leaf := state.PeerCertificates[0]
	if n := len(state.PeerCertificates); n > maxClientChain {
		const text = "client certificate is not trusted: it has a chain of %d certificates, want at most %d"
		return leaf, fmt.Sprintf(text, n, maxClientChain)
	}
	hash := sha256.New()
	for _, cert := range state.PeerCertificates {
		hash.Write(cert.Raw) // DER contains its own length, so that no two chains give the same bytes
	}
	key := digest(hash.Sum(nil))
	on := basis{roots, v.revocations.set()}
	if v.remembers(key, on, now) {
		return leaf, ""
	}
	chains, err := pki.VerifyPath(leaf, pki.PathOptions{
		Pool: roots, Others: state.PeerCertificates[1:], At: now,
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return leaf, "client certificate is not trusted: " + err.Error()
	}
	chain, reason, until := on.crls.choose(chains, now)
	if reason != "" {
		return leaf, "client certificate is not trusted: " + reason
	}
	v.remember(key, on, chain, until)
	return leaf, ""
}

func (v *clientVerifier) remembers(key digest, on basis, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	w, ok := v.verified[key]
	return ok && v.basis == on && !now.Before(w.from) && !now.After(w.to)
}

// remember remembers a chain; until is the end of the CRLs that it is not in, zero for none.
func (v *clientVerifier) remember(key digest, on basis, chain []*x509.Certificate, until time.Time) {
	w := window{from: chain[0].NotBefore, to: earlier(chain[0].NotAfter, until)}
	for _, cert := range chain[1:] {
		if cert.NotBefore.After(w.from) {
			w.from = cert.NotBefore
		}
		if cert.NotAfter.Before(w.to) {
			w.to = cert.NotAfter
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.basis != on || len(v.verified) >= maxVerified {
		v.basis, v.verified = on, map[digest]window{}
	}
	v.verified[key] = w
}

// clientKey tells clients apart where they share something. The certificate alone is not enough:
// all pods of a namespace may show the same one.
type clientKey struct {
	address     netip.Addr
	certificate [32]byte // SHA-256; zero: it showed none
}

// clientOf is the client at a host:port, with the certificate that it showed, trusted or not; a
// nil state has none.
func clientOf(state *tls.ConnectionState, remote string) clientKey {
	client := clientKey{address: program.ClientAddress(remote)}
	if state != nil && len(state.PeerCertificates) > 0 {
		client.certificate = sha256.Sum256(state.PeerCertificates[0].Raw)
	}
	return client
}
