package certservice

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// TLS is how a CMP server at an https:// URL is talked to. The identity is not exported, so that nothing encodes its key.
type TLS struct {
	Trust    []*x509.Certificate // that the server's certificate must chain to; none: the system's roots
	identity *tls.Certificate    // shown to a server that asks for it; nil: none
}

// digest tells apart settings that need connections of their own.
func (t TLS) digest() digest {
	hash := sha256.New()
	for _, cert := range t.Trust {
		hash.Write(cert.Raw)
	}
	if t.identity != nil {
		hash.Write([]byte("identity"))
		for _, der := range t.identity.Certificate {
			hash.Write(der)
		}
	}
	return digest(hash.Sum(nil))
}

func (t TLS) config() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.Trust) > 0 {
		config.RootCAs = x509.NewCertPool()
		for _, cert := range t.Trust {
			config.RootCAs.AddCert(cert)
		}
	}
	if t.identity != nil {
		// Shown whatever CAs the server names: it is the one that is configured, and the server says what it dislikes.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.identity, nil }
	}
	return config
}

// hasSystemRoots is false in an image that holds no roots, such as ours.
var hasSystemRoots = sync.OnceValue(func() bool {
	pool, err := x509.SystemCertPool()
	return err == nil && !pool.Equal(x509.NewCertPool())
})

// tls reads the fields for https:// URLs.
func (e entryParser) tls(url string) TLS {
	given := e.fields["tlsTrust"] != nil
	t := TLS{Trust: e.anchors("tlsTrust"), identity: e.tlsIdentity()}
	if strings.HasPrefix(strings.ToLower(url), "https://") {
		if !given && !hasSystemRoots() {
			e.fault("tlsTrust", "is missing%s, and this system has no roots to verify the CMP server's certificate by, "+
				"want the path of a PEM file with its CA", e.misspelt.hint("tlsTrust"))
		}
		return t
	}
	for _, field := range []string{"tlsTrust", "tlsIdentity"} {
		if e.fields[field] != nil && url != "" {
			e.warn(field, "has no effect, as url does not begin with https://")
		}
	}
	return t
}

// tlsIdentity reads the certificate, with its chain behind it, and the key that the CMP server is shown.
func (e entryParser) tlsIdentity() *tls.Certificate {
	raw := e.fields["tlsIdentity"]
	if raw == nil {
		return nil
	}
	fields, ok := raw.(map[string]any)
	if !ok {
		e.fault("tlsIdentity", `is %s, want an object with "certificate" and "key"`, kind(raw))
		return nil
	}
	inner := e.inner("tlsIdentity", fields)
	inner.checkFields([]string{"certificate", "key"})
	certificate, key := inner.file("certificate"), inner.file("key")
	if certificate == nil || key == nil {
		return nil
	}
	identity, err := tls.X509KeyPair(pki.RewritePEM(certificate), pki.RewritePEM(key))
	if err != nil {
		e.fault("tlsIdentity", "cannot be used: %s, want a PEM certificate and its unencrypted PEM key",
			strings.TrimPrefix(err.Error(), "tls: "))
		return nil
	}
	e.checkDates("tlsIdentity", identity.Leaf)
	return &identity
}

func (e entryParser) checkDates(field string, leaf *x509.Certificate) {
	now, name := time.Now(), pki.DN(leaf.RawSubject)
	switch {
	case now.After(leaf.NotAfter):
		e.warn(field, "has the certificate %q, which expired at %s", name, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		e.warn(field, "has the certificate %q, which is not valid before %s", name, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
}

// file returns the content of the file that a required field names, nil after a fault.
func (e entryParser) file(field string) []byte {
	name := e.required(field, 1, 4096)
	if name == "" {
		return nil
	}
	data, err := e.readFile(name)
	if err != nil {
		e.fault(field, "%v", err)
		return nil
	}
	return data
}
