package mtls

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// trust reads whom to trust. A certificate that can verify nothing here is skipped, and said to be; it is a fault when
// no other is left.
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
	for i, e := range store.TrustedEntries() {
		entry := fmt.Sprintf("certificate %d", i+1)
		if e.Alias != "" {
			entry = fmt.Sprintf("entry %q", e.Alias)
		}
		cert := e.Chain[0]
		if !slices.ContainsFunc(roots, func(r root) bool { return r.cert.Equal(cert) }) {
			roots = append(roots, root{entry, cert})
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("TRUSTSTORE_PATH %q has no trusted certificate, only private keys: "+
			"want a store with the CA of the other side (is it the keystore?)", store.path)
	}
	return roots, nil
}
