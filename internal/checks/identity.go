package checks

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/keygen"
)

// Names of the checks of an identity's files. Those of its certificate begin with Identity.Side.
const (
	Keystore   = "keystore"
	Truststore = "truststore"
)

// Identity checks the files of an identity for mutual TLS.
type Identity struct {
	*List
	Files    mtls.Files
	Now      func() time.Time
	ExitCode int    // of failures
	Program  string // that reads the files
	Peer     string // that sees the certificate, and is verified by the truststore
	Side     string // the first word in the names of the certificate's checks
}

// Check makes the checks; nil when the identity cannot be used.
func (d *Identity) Check() *mtls.Identity {
	const advice = "correct the variable, or the file or Secret that it leads to"
	t := d.Files
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
			d.Fail(d.ExitCode, Keystore, err.Error(), advice)
			d.SkipRest([]string{d.Side + " chain", d.Side + " expiry", d.Side + " usage"},
				"because the keystore check failed")
		}
	}
	switch {
	case rootsErr != nil:
		d.Fail(d.ExitCode, Truststore, rootsErr.Error(), advice)
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

// keystore says where the key is, and who may read it.
func (d *Identity) keystore(i *mtls.Identity) {
	t := d.Files
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
	advice := "set defaultMode: 0440 on the Secret's volume, and fsGroup so that " + d.Program + " can still read it"
	mode := modeOf(holdsKey)
	switch {
	case mode&0o002 != 0:
		d.Warn(Keystore, found+"; every user can replace it", advice)
	// The other formats are encrypted, and a Secret's files
	// are 0644 unless defaultMode says otherwise.
	case mode&0o004 != 0 && i.KeystoreFormat == keystore.PEM:
		d.Warn(Keystore, found+"; every user can read the private key", advice)
	default:
		d.OK(Keystore, "%s", found)
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

// chain says how far the chain goes that the peer is shown.
func (d *Identity) chain(chain []*x509.Certificate, i *mtls.Identity) {
	for n, cert := range chain[:len(chain)-1] {
		if algorithm := pki.UnsupportedSignature(cert); algorithm != "" {
			d.Warn(d.Side+" chain",
				fmt.Sprintf(
					"%q in KEYSTORE_PATH is signed with %s, which is not accepted here, and may "+
						"not be by %s", pki.DN(cert.RawSubject), algorithm, d.Peer),
				"have it issued with SHA-256 or stronger")
			return
		}
		if err := pki.Unusable(chain[n+1]); err != nil {
			d.Warn(d.Side+" chain",
				fmt.Sprintf("whether %q is signed by %q, which follows it in KEYSTORE_PATH, is not known: %v",
					pki.DN(cert.RawSubject), pki.DN(chain[n+1].RawSubject), err),
				"see whether it is accepted by "+d.Peer)
			return
		}
		if err := cert.CheckSignatureFrom(chain[n+1]); err != nil {
			d.Warn(d.Side+" chain", fmt.Sprintf("%q is not signed by %q, which follows it in KEYSTORE_PATH (%v)",
				pki.DN(cert.RawSubject), pki.DN(chain[n+1].RawSubject), err),
				"put the certificate of the CA that signed it into the keystore: this one has "+
					"the same name, but another key")
			return
		}
	}
	last := chain[len(chain)-1]
	switch {
	case isSelfIssued(last) && len(chain) == 1:
		d.OK(d.Side+" chain", "the certificate is self-signed")
	case isSelfIssued(last):
		d.OK(d.Side+" chain", "complete: %d certificates, up to the root %q", len(chain), pki.DN(last.RawSubject))
	default:
		text := "it is not in TRUSTSTORE_PATH, so it has to be known to " + d.Peer
		if d.Files.Server {
			text = "it has to be known to " + d.Peer
		} else if len(i.Roots) == 0 {
			text = "whether it is in TRUSTSTORE_PATH is not known"
		} else if slices.ContainsFunc(i.Roots,
			func(root *x509.Certificate) bool { return last.CheckSignatureFrom(root) == nil }) {
			text = "it is in TRUSTSTORE_PATH"
		}
		d.OK(d.Side+" chain", "%d sent, up to one issued by %q; %s", len(chain), pki.DN(last.RawIssuer), text)
	}
}

func isSelfIssued(cert *x509.Certificate) bool {
	return string(cert.RawSubject) == string(cert.RawIssuer)
}

func (d *Identity) expiry(chain []*x509.Certificate) {
	const advice = "have a new certificate issued, and replace the file in KEYSTORE_PATH"
	now, ends := d.Now(), chain[0]
	for _, cert := range chain {
		switch {
		case now.After(cert.NotAfter):
			d.Fail(d.ExitCode, d.Side+" expiry",
				fmt.Sprintf("%q expired at %s", pki.DN(cert.RawSubject), pki.Stamp(cert.NotAfter)),
				advice+", or check this machine's clock")
			return
		case now.Before(cert.NotBefore):
			d.Fail(d.ExitCode, d.Side+" expiry",
				fmt.Sprintf("%q is not valid before %s, and it is %s here", pki.DN(cert.RawSubject),
					pki.Stamp(cert.NotBefore), pki.Stamp(now)), "check this machine's clock")
			return
		}
		if cert.NotAfter.Before(ends.NotAfter) {
			ends = cert
		}
	}
	text := fmt.Sprintf("%q is valid until %s", pki.DN(ends.RawSubject), Until(ends.NotAfter, now))
	if pki.ExpiresSoon(ends, now) {
		d.Warn(d.Side+" expiry", text, advice)
		return
	}
	d.OK(d.Side+" expiry", "%s", text)
}

// usage checks RFC 5280, sections 4.2.1.3 and 4.2.1.12;
// where an extension is missing, everything is allowed.
func (d *Identity) usage(leaf *x509.Certificate) {
	name, wanted, others := x509.ExtKeyUsageClientAuth, "clientAuth", "servers"
	if d.Files.Server {
		name, wanted, others = x509.ExtKeyUsageServerAuth, "serverAuth", "clients"
	}
	advice := "have one issued with keyUsage digitalSignature and extendedKeyUsage " + wanted + ": " + others +
		" commonly refuse others"
	extended := slices.Contains(leaf.ExtKeyUsage, name) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
	check := d.Side + " usage"
	switch {
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		d.Warn(check, "the certificate's keyUsage lacks digitalSignature", advice)
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0:
		d.OK(check, "the certificate is not limited in its use")
	case !extended && d.Files.Server:
		d.Fail(d.ExitCode, check, "the certificate's extendedKeyUsage lacks "+wanted, advice)
	case !extended:
		d.Warn(check, "the certificate's extendedKeyUsage lacks "+wanted, advice)
	default:
		d.OK(check, "the certificate is for %s", wanted)
	}
}

func (d *Identity) truststore(trust *mtls.Identity) {
	now := d.Now()
	var subjects, expired []string
	for _, root := range trust.Roots {
		subjects = append(subjects, fmt.Sprintf("%q", pki.DN(root.RawSubject)))
		if now.After(root.NotAfter) {
			expired = append(expired, fmt.Sprintf("%q (%s)", pki.DN(root.RawSubject), pki.Stamp(root.NotAfter)))
		}
	}
	path := d.Files.TruststorePath
	found := fmt.Sprintf("%s; trusts %s", fileText(path, trust.TruststoreFormat), Some(subjects))
	switch {
	case len(trust.Skipped) > 0:
		d.Warn(Truststore, found+"; "+Some(trust.Skipped),
			"remove those entries if no other program needs them; if the CA of "+d.Peer+" is "+
				"among them, it needs another one")
	case len(expired) > 0:
		d.Warn(Truststore, found+"; expired: "+Some(expired), "replace them with the CA's current certificates")
	case modeOf(path)&0o002 != 0:
		d.Warn(Truststore, found+"; every user can replace it", "take the right to write from others")
	default:
		d.OK(Truststore, "%s", found)
	}
}
