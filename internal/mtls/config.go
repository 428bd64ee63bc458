package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Pool holds Roots. It is always the same pool, so that what
// was verified against it can be remembered.
func (i *Identity) Pool() *x509.CertPool {
	i.poolOnce.Do(func() {
		i.pool = x509.NewCertPool()
		for _, root := range i.Roots {
			i.pool.AddCert(root)
		}
	})
	return i.pool
}

// ClientConfig is for a client that shows the identity: TLS 1.2 or later, the server must chain to
// Roots and have the host name that is dialled.
func (i *Identity) ClientConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    i.Pool(),
		// Certificates instead would show nothing to a server whose list
		// of acceptable CAs lacks ours, and the server would then complain
		// of a missing certificate where the wrong one is to blame.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &i.Certificate, nil
		},
	}
}

// ServerConfig is for a server that shows the identity: TLS 1.2 or later, HTTP/1.1. Where
// clientAuth verifies, clients must chain to Roots.
func (i *Identity) ServerConfig(clientAuth tls.ClientAuthType) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{i.Certificate},
		ClientAuth:   clientAuth,
		ClientCAs:    i.Pool(),
		NextProtos:   []string{"http/1.1"},
	}
}

// Problems says in one sentence each why the other side has to refuse the identity, as far as it
// is known here: a certificate of another usage, or one that is not valid now.
func (i *Identity) Problems(now time.Time) []string { return i.examine(now, false) }

// Warnings says in one sentence each what is wrong with the identity or soon will be. The other
// side decides what comes of it.
func (i *Identity) Warnings(now time.Time) []string {
	warnings := i.examine(now, true)
	for _, root := range i.Roots {
		if text := dateWarning(root, now, false); text != "" {
			warnings = append(warnings, fmt.Sprintf("the certificate %q in TRUSTSTORE_PATH %s",
				pki.DN(root.RawSubject), text))
		}
	}
	return append(warnings, i.Skipped...)
}

// LogWarnings logs what Warnings says now.
func (i *Identity) LogWarnings(log *slog.Logger) {
	for _, warning := range i.Warnings(time.Now()) {
		log.Warn("the TLS identity needs attention", "error", warning)
	}
}

// examine looks at the chain that is shown; ahead, for what will be wrong soon as well.
func (i *Identity) examine(now time.Time, ahead bool) []string {
	var found []string
	leaf := i.Certificate.Leaf
	if leaf == nil {
		return nil // of Files that are partial
	}
	if !i.signsOnly && !goodFor(leaf, i.server) {
		side := "client"
		if i.server {
			side = "server"
		}
		found = append(found,
			fmt.Sprintf("the certificate %q in KEYSTORE_PATH has usages that do not allow a %s to show it",
				pki.DN(leaf.RawSubject), side))
	}
	for n, der := range i.Certificate.Certificate {
		cert, name := leaf, "the certificate"
		if n > 0 {
			var err error
			if cert, err = pki.Parse(der); err != nil {
				continue // Load has made this from a parsed one
			}
			name = "the signer"
		}
		if text := dateWarning(cert, now, ahead); text != "" {
			found = append(found, fmt.Sprintf("%s %q in KEYSTORE_PATH %s", name, pki.DN(cert.RawSubject), text))
		}
	}
	return found
}

func dateWarning(cert *x509.Certificate, now time.Time, ahead bool) string {
	left := cert.NotAfter.Sub(now)
	switch {
	case cert.NotAfter.IsZero(): // not readable, of a certificate that verifies nothing here
	case left < 0:
		return "expired at " + pki.Stamp(cert.NotAfter)
	case now.Before(cert.NotBefore):
		return "is not valid before " + pki.Stamp(cert.NotBefore)
	case ahead && pki.ExpiresSoon(cert, now):
		return fmt.Sprintf("expires at %s, in %s", pki.Stamp(cert.NotAfter), left.Round(time.Second))
	}
	return ""
}

// trust reads whom to trust. A certificate that can verify nothing here is skipped, and said to
// be; it is a fault when no other is left.
func (c contents) trust(f Files, i *Identity) error {
	variable := passwordVariable("TRUSTSTORE_PASSWORD", f.TruststorePasswordFile)
	store, err := open("TRUSTSTORE_PATH", f.TruststorePath, variable, c.truststorePassword, c.truststore, false)
	if err != nil {
		return err
	}
	found, err := roots(store)
	if err != nil {
		return err
	}
	i.TruststoreFormat = store.Format
	var reasons []string
	for _, u := range store.Unreadable {
		if !u.Key {
			reasons = append(reasons, u.Error())
		}
	}
	for _, r := range found {
		if err := pki.Unusable(r.cert); err != nil {
			reasons = append(reasons, fmt.Sprintf("%s, %q, can verify nothing here: %v", r.entry,
				pki.DN(r.cert.RawSubject), err))
			continue
		}
		i.Roots = append(i.Roots, r.cert)
	}
	if len(i.Roots) == 0 {
		return fmt.Errorf("TRUSTSTORE_PATH %q has no certificate that can be used: %s",
			f.TruststorePath, strings.Join(pki.FirstOf(reasons, 5), "; "))
	}
	for _, reason := range reasons {
		i.Skipped = append(i.Skipped, fmt.Sprintf("TRUSTSTORE_PATH %q: %s; it is skipped", f.TruststorePath, reason))
	}
	return nil
}

// root is a certificate to trust, and how to find it in its store.
type root struct {
	entry string
	cert  *x509.Certificate
}

// roots are the certificates to trust, each once.
func roots(store opened) ([]root, error) {
	var roots []root
	seen := map[string]bool{}
	for i, e := range store.TrustedEntries() {
		entry := fmt.Sprintf("certificate %d", i+1)
		if e.Alias != "" {
			entry = fmt.Sprintf("entry %q", e.Alias)
		}
		cert := e.Chain[0]
		if !seen[string(cert.Raw)] {
			seen[string(cert.Raw)] = true
			roots = append(roots, root{entry, cert})
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("TRUSTSTORE_PATH %q has no trusted certificate, only private keys: "+
			"want a store with the CA of the other side (is it the keystore?)", store.path)
	}
	return roots, nil
}
