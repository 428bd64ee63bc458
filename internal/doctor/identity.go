package doctor

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/keygen"
)

// identity checks the mutual TLS files, and the token; nil when they cannot be used.
func (d *doctor) identity() *mtls.Identity {
	path := d.Config.Request.TokenPath
	for _, fault := range d.Faults {
		if fault.Stage == enroll.StageTLSConfiguration {
			d.skipRest(identityChecks, fault.Variable+" has a fault")
			if path != "" {
				d.skipRest(tokenChecks, fault.Variable+" has a fault")
			}
			return nil
		}
	}
	identity := d.identityFiles()
	if path != "" && !d.token(path) && identity != nil {
		d.lacking, identity = "token", nil
	}
	return identity
}

func (d *doctor) identityFiles() *mtls.Identity {
	const advice = "correct the variable, or the file or Secret that it leads to"
	t := d.Config.TLS
	identity, trust := &mtls.Identity{}, &mtls.Identity{}
	var err, rootsErr error
	trusts := !t.Partial || t.TruststorePath != ""
	if trusts {
		trust, rootsErr = mtls.LoadRoots(t)
	}
	if !t.Partial || t.KeystorePath != "" {
		if identity, err = mtls.LoadKeystore(t); err == nil {
			if rootsErr == nil {
				identity.Roots = trust.Roots // which some of what follows is about
			}
			d.keystore(identity)
			chain := chainOf(identity)
			d.chain(chain, identity)
			d.expiry(chain)
			d.usage(chain[0])
		} else {
			d.fail(enroll.StageTLSConfiguration, checkKeystore, err.Error(), advice)
			d.skipRest([]string{checkChain, checkExpiry, checkUsage}, "because the keystore check failed")
		}
	}
	switch {
	case rootsErr != nil:
		d.fail(enroll.StageTLSConfiguration, checkTruststore, rootsErr.Error(), advice)
		return nil
	case trusts:
		d.truststore(trust)
	}
	if err != nil {
		return nil
	}
	identity.Roots, identity.Skipped, identity.TruststoreFormat = trust.Roots, trust.Skipped, trust.TruststoreFormat
	return identity
}

func (d *doctor) keystore(i *mtls.Identity) {
	t := d.Config.TLS
	leaf := i.Certificate.Leaf
	algorithm, err := keygen.AlgorithmOf(leaf.PublicKey)
	if err != nil {
		algorithm = leaf.PublicKeyAlgorithm.String()
	}
	found := fmt.Sprintf("%s; %s key of %q", fileText(t.KeystorePath, i.KeystoreFormat), algorithm,
		pki.DN(leaf.RawSubject))
	holdsKey := t.KeystorePath
	if t.KeystoreKeyPath != "" {
		holdsKey = t.KeystoreKeyPath
		found += "; " + fileText(t.KeystoreKeyPath, i.KeystoreFormat)
	}
	const advice = "set defaultMode: 0440 on the Secret's volume, and fsGroup so that certfetcher can still read it"
	mode := modeOf(holdsKey)
	switch {
	case mode&0o002 != 0:
		d.warn(checkKeystore, found+"; every user can replace it", advice)
	// The other formats are encrypted, and a Secret's files
	// are 0644 unless defaultMode says otherwise.
	case mode&0o004 != 0 && i.KeystoreFormat == keystore.PEM:
		d.warn(checkKeystore, found+"; every user can read the private key", advice)
	default:
		d.ok(checkKeystore, "%s", found)
	}
}

func modeOf(path string) fs.FileMode {
	info, err := os.Stat(path)
	if err != nil {
		return 0 // it has just been read; that it vanished since is not this check's business
	}
	return info.Mode().Perm()
}

// formatByExtension is what a file's name promises.
var formatByExtension = map[string]keystore.Format{
	".jks": keystore.JKS, ".p12": keystore.PKCS12, ".pfx": keystore.PKCS12, ".pkcs12": keystore.PKCS12,
	".pem": keystore.PEM, ".crt": keystore.PEM, ".cer": keystore.PEM, ".key": keystore.PEM,
}

func fileText(path string, format keystore.Format) string {
	text := fmt.Sprintf("%q is %s", path, format)
	extension := strings.ToLower(filepath.Ext(path))
	if promised, known := formatByExtension[extension]; known && promised != format {
		text += " in spite of its name, which does no harm"
	}
	return fmt.Sprintf("%s, mode %04o", text, uint32(modeOf(path)))
}

func chainOf(i *mtls.Identity) []*x509.Certificate {
	chain := []*x509.Certificate{i.Certificate.Leaf}
	for _, der := range i.Certificate.Certificate[1:] {
		if cert, err := pki.Parse(der); err == nil { // mtls has made it from a parsed one
			chain = append(chain, cert)
		}
	}
	return chain
}

// chain says how far the chain goes that the CertService will be shown.
func (d *doctor) chain(chain []*x509.Certificate, i *mtls.Identity) {
	for n, cert := range chain[:len(chain)-1] {
		if algorithm := pki.UnsupportedSignature(cert); algorithm != "" {
			d.warn(checkChain,
				fmt.Sprintf(
					"%q in KEYSTORE_PATH is signed with %s, which is not accepted here, and may "+
						"not be by the CertService", pki.DN(cert.RawSubject), algorithm),
				"have it issued with SHA-256 or stronger")
			return
		}
		if err := pki.Unusable(chain[n+1]); err != nil {
			d.warn(checkChain,
				fmt.Sprintf("whether %q is signed by %q, which follows it in KEYSTORE_PATH, is not known: %v",
					pki.DN(cert.RawSubject), pki.DN(chain[n+1].RawSubject), err),
				"see whether the CertService accepts it")
			return
		}
		if err := cert.CheckSignatureFrom(chain[n+1]); err != nil {
			d.warn(checkChain, fmt.Sprintf("%q is not signed by %q, which follows it in KEYSTORE_PATH (%v)",
				pki.DN(cert.RawSubject), pki.DN(chain[n+1].RawSubject), err),
				"put the certificate of the CA that signed it into the keystore: this one has "+
					"the same name, but another key")
			return
		}
	}
	last := chain[len(chain)-1]
	switch {
	case isSelfIssued(last) && len(chain) == 1:
		d.ok(checkChain, "the certificate is self-signed")
	case isSelfIssued(last):
		d.ok(checkChain, "complete: %d certificates, up to the root %q", len(chain), pki.DN(last.RawSubject))
	default:
		text := "it is not in TRUSTSTORE_PATH, so the CertService has to know it"
		if len(i.Roots) == 0 {
			text = "whether it is in TRUSTSTORE_PATH is not known"
		} else if slices.ContainsFunc(i.Roots,
			func(root *x509.Certificate) bool { return last.CheckSignatureFrom(root) == nil }) {
			text = "it is in TRUSTSTORE_PATH"
		}
		d.ok(checkChain, "%d sent, up to one issued by %q; %s", len(chain), pki.DN(last.RawIssuer), text)
	}
}

func isSelfIssued(cert *x509.Certificate) bool {
	return string(cert.RawSubject) == string(cert.RawIssuer)
}

func (d *doctor) expiry(chain []*x509.Certificate) {
	const advice = "have a new certificate issued, and replace the file in KEYSTORE_PATH"
	now, ends := d.Now(), chain[0]
	for _, cert := range chain {
		switch {
		case now.After(cert.NotAfter):
			d.fail(enroll.StageTLSConfiguration, checkExpiry,
				fmt.Sprintf("%q expired at %s", pki.DN(cert.RawSubject), pki.Stamp(cert.NotAfter)),
				advice+", or check this machine's clock")
			return
		case now.Before(cert.NotBefore):
			d.fail(enroll.StageTLSConfiguration, checkExpiry,
				fmt.Sprintf("%q is not valid before %s, and it is %s here", pki.DN(cert.RawSubject),
					pki.Stamp(cert.NotBefore), pki.Stamp(now)), "check this machine's clock")
			return
		}
		if cert.NotAfter.Before(ends.NotAfter) {
			ends = cert
		}
	}
	text := fmt.Sprintf("%q is valid until %s", pki.DN(ends.RawSubject), until(ends.NotAfter, now))
	if pki.ExpiresSoon(ends, now) {
		d.warn(checkExpiry, text, advice)
		return
	}
	d.ok(checkExpiry, "%s", text)
}

// usage checks RFC 5280, sections 4.2.1.3 and 4.2.1.12;
// where an extension is missing, everything is allowed.
func (d *doctor) usage(leaf *x509.Certificate) {
	const advice = "have one issued with keyUsage digitalSignature and extendedKeyUsage " +
		"clientAuth: servers commonly refuse others"
	extended := slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
	switch {
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		d.warn(checkUsage, "the certificate's keyUsage lacks digitalSignature", advice)
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0:
		d.ok(checkUsage, "the certificate is not limited in its use")
	case !extended:
		d.warn(checkUsage, "the certificate's extendedKeyUsage lacks clientAuth", advice)
	default:
		d.ok(checkUsage, "the certificate is for clientAuth")
	}
}

func (d *doctor) truststore(trust *mtls.Identity) {
	now := d.Now()
	var subjects, expired []string
	for _, root := range trust.Roots {
		subjects = append(subjects, fmt.Sprintf("%q", pki.DN(root.RawSubject)))
		if now.After(root.NotAfter) {
			expired = append(expired, fmt.Sprintf("%q (%s)", pki.DN(root.RawSubject), pki.Stamp(root.NotAfter)))
		}
	}
	path := d.Config.TLS.TruststorePath
	found := fmt.Sprintf("%s; trusts %s", fileText(path, trust.TruststoreFormat), some(subjects))
	switch {
	case len(trust.Skipped) > 0:
		d.warn(checkTruststore, found+"; "+some(trust.Skipped),
			"remove those entries if no other program needs them; if the CertService's CA is "+
				"among them, it needs another one")
	case len(expired) > 0:
		d.warn(checkTruststore, found+"; expired: "+some(expired), "replace them with the CA's current certificates")
	case modeOf(path)&0o002 != 0:
		d.warn(checkTruststore, found+"; every user can replace it", "take the right to write from others")
	default:
		d.ok(checkTruststore, "%s", found)
	}
}

func some(list []string) string { return checks.Some(list) }

func until(end, now time.Time) string { return checks.Until(end, now) }
