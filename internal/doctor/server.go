package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// shown are the certificates of the server, whether they were trusted or not.
func (s *service) shown(err error) []*x509.Certificate {
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return untrusted.UnverifiedCertificates
	case s.conn == nil:
		return nil
	}
	return s.conn.ConnectionState().PeerCertificates
}

func (s *service) handshake() {
	state := s.conn.ConnectionState()
	s.ok(checkTLS, "%s with %s, %s", tls.VersionName(state.Version), s.target.Host, tls.CipherSuiteName(state.CipherSuite))
}

// handshakeFailure explains an error that came before the server showed a certificate.
func (s *service) handshakeFailure(err error) (found, advice string) {
	var noTLS tls.RecordHeaderError
	var refusal *proxyRefusal
	switch alert, alerted := alertOf(err); {
	case errors.As(err, &refusal):
		return refusal.Error() + " to the request for a connection to " + s.target.Host, "let the proxy allow it, or name the host in NO_PROXY"
	case errors.As(err, &noTLS):
		found = "the server does not speak TLS on this port"
		if bytes.HasPrefix(noTLS.RecordHeader[:], []byte("HTTP")) {
			found += ", but plain HTTP"
		}
		return found, "correct the port in REQUEST_URL; a CertService has 8443 for the API"
	case alerted:
		return fmt.Sprintf("the server refuses the handshake: %s", alert),
			"TLS 1.2 or later with current ciphers is needed, and a host name that the server knows; see its log"
	}
	return "the TLS handshake was not completed: " + s.reason(err), "check that the port in REQUEST_URL speaks TLS, and that nothing on the way cuts it off"
}

// certificate judges what the server showed: whose it is, whether it chains to the truststore, and whether it
// has the host name. trusted is what Go's TLS decides as well. When nothing but the dates is wrong, moment
// is a time at which they were right.
func (s *service) certificate(shown []*x509.Certificate) (moment time.Time, trusted bool) {
	leaf, now := shown[0], s.Now()
	found := fmt.Sprintf("subject %q, issuer %q, names %s, valid until ", leaf.Subject, leaf.Issuer, names(leaf))
	moment, chain, err := s.verify(shown, now)
	timely := err != nil || moment.Equal(now)
	switch {
	case now.After(leaf.NotAfter):
		s.fail(enroll.StageConnection, checkServer, found+stamp(leaf.NotAfter)+", which is over", "have the CertService's certificate renewed, or check this machine's clock")
		timely = false
	case now.Before(leaf.NotBefore):
		s.fail(enroll.StageConnection, checkServer, found+stamp(leaf.NotAfter)+", but not before "+stamp(leaf.NotBefore), "check this machine's clock")
		timely = false
	case !timely:
		s.fail(enroll.StageConnection, checkServer, found+until(leaf.NotAfter, now)+"; a CA above it is not valid now", "have the CertService's chain renewed, or check this machine's clock")
	case soon(leaf, now):
		s.warn(checkServer, found+until(leaf.NotAfter, now), "have the CertService's certificate renewed")
	default:
		s.ok(checkServer, "%s", found+until(leaf.NotAfter, now))
	}

	if err == nil {
		s.ok(checkTrust, "chains to %q in TRUSTSTORE_PATH", chain[len(chain)-1].Subject)
	} else {
		var roots []string
		for _, root := range s.identity.Roots {
			roots = append(roots, fmt.Sprintf("%q", root.Subject))
		}
		last := shown[len(shown)-1]
		why, advice := x509Reason(err), fmt.Sprintf("add the certificate of the CA %q to the truststore, if this is your CertService", last.Issuer)
		if reason := pki.HandshakeReason(err, shown, s.identity.Roots); reason != "" {
			why, advice = reason, "correct that certificate; the one of another CA in the truststore does not help"
		}
		s.fail(enroll.StageConnection, checkTrust,
			fmt.Sprintf("does not chain to TRUSTSTORE_PATH: the server sends %d certificates, the last issued by %q; the truststore has %s (%s)", len(shown), last.Issuer, some(roots), why),
			advice)
	}

	host := s.target.Hostname()
	fits := leaf.VerifyHostname(strings.TrimSuffix(host, ".")) == nil
	switch {
	case fits:
		s.ok(checkServerName, "the certificate is for %q", host)
	case pki.OnlyCommonName(leaf, host):
		s.fail(enroll.StageConnection, checkServerName, fmt.Sprintf("the certificate has %q as common name (CN) only, which is not looked at (RFC 9525)", host),
			"have it issued with that name as a subject alternative name")
	default:
		s.fail(enroll.StageConnection, checkServerName, fmt.Sprintf("the certificate is not for %q, but for %s", host, names(leaf)),
			"use one of its names in REQUEST_URL, or have it issued with this one")
	}
	if err != nil || !fits {
		return time.Time{}, false
	}
	return moment, timely
}

func names(cert *x509.Certificate) string {
	if list := pki.Names(cert); len(list) > 0 {
		return some(list)
	}
	return "none"
}

func x509Reason(err error) string { return pki.ShortError(err) }

// verify looks for a chain that is valid now, or else at another time: dates tell of a clock or of a late
// renewal, a missing chain of a wrong truststore. A chain that is valid at any time is so when the last of its
// certificates begins.
func (s *service) verify(shown []*x509.Certificate, now time.Time) (moment time.Time, chain []*x509.Certificate, err error) {
	intermediates := x509.NewCertPool()
	moments := []time.Time{now}
	for _, cert := range shown[1:] {
		intermediates.AddCert(cert)
	}
	for _, cert := range slices.Concat(shown, s.identity.Roots) {
		moments = append(moments, cert.NotBefore)
	}
	for _, at := range moments {
		chains, failure := shown[0].Verify(x509.VerifyOptions{
			Roots: s.identity.Pool(), Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if failure == nil {
			return at, chains[0], nil
		}
		if err == nil {
			err = failure
		}
	}
	return time.Time{}, nil, err
}

// clockAt asks for the server's date when its certificate is fine but for the time: it may well be ours that is
// wrong. Only the time of the verification is changed; the server has to chain to the truststore and to have
// the name all the same, and nothing secret is sent.
func (s *service) clockAt(ctx context.Context, moment time.Time) {
	s.config.Time = func() time.Time { return moment }
	limited, cancel := context.WithTimeout(ctx, s.NetworkTimeout)
	defer cancel()
	s.conversation.close()
	if a, err := s.get(limited, s.caURL(unknownCA)); err == nil {
		s.clock(a)
	}
}
