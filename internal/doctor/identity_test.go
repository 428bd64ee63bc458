package doctor_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// reissue gives the client another certificate of the CA that the CertService trusts.
func reissue(t *testing.T, s *service.Service, change func(leaf *x509.Certificate)) {
	t.Helper()
	s.Transport.Change = change
	key, chain, err := s.Transport.Identity("certfetcher")
	require.NoError(t, err)
	require.NoError(t, fixture.WriteIdentity(s.Dir, key, chain, s.Transport.Root))
}

func TestRun_identity(t *testing.T) {
	const client = "keystore,client chain,client expiry,client usage,truststore"
	reissued := func(change func(leaf *x509.Certificate)) row {
		return row{show: "client expiry,client usage",
			change: func(t *testing.T, s *service.Service, _ *doctor.Options) { reissue(t, s, change) }}
	}
	expired := func(leaf *x509.Certificate) {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	chained := func(show func(chain []*x509.Certificate, root *x509.Certificate) []*x509.Certificate) row {
		return row{show: "client chain", change: func(t *testing.T, s *service.Service, o *doctor.Options) {
			key, chain, err := s.Transport.Identity("certfetcher")
			require.NoError(t, err)
			require.NoError(t, fixture.WriteIdentity(s.Dir, key, show(chain, s.Transport.Root), s.Transport.Root))
			o.Config.TLS.KeystorePath = filepath.Join(s.Dir, "client.jks")
		}}
	}
	requireReports(t, "identity.txt", map[string]row{
		"is valid for long": reissued(func(leaf *x509.Certificate) { leaf.NotAfter = leaf.NotBefore.AddDate(1, 0, 0) }),
		"expires soon": reissued(func(leaf *x509.Certificate) {
			leaf.NotBefore = leaf.NotAfter.AddDate(0, 0,
				-90)
		}),
		"has expired": reissued(expired),
		"is a server's": reissued(func(leaf *x509.Certificate) {
			leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
		"may not sign":   reissued(func(leaf *x509.Certificate) { leaf.KeyUsage = x509.KeyUsageKeyEncipherment }),
		"is for any use": reissued(func(leaf *x509.Certificate) { leaf.ExtKeyUsage = nil }),

		"has the root in its chain": chained(func(chain []*x509.Certificate,
			root *x509.Certificate) []*x509.Certificate {
			return append(chain[:2:2], root)
		}),
		"lacks the root in its chain": chained(func(chain []*x509.Certificate,
			_ *x509.Certificate) []*x509.Certificate {
			return chain
		}),
		"lacks the intermediate": chained(func(chain []*x509.Certificate,
			_ *x509.Certificate) []*x509.Certificate {
			return chain[:1]
		}),
		"has an intermediate of another key": chained(func(chain []*x509.Certificate,
			_ *x509.Certificate) []*x509.Certificate {
			return []*x509.Certificate{chain[0], newCA("Transport").Issuing}
		}),

		"is a PKCS#12 file named .jks": {show: client,
			change: func(t *testing.T, s *service.Service, o *doctor.Options) {
				o.Config.TLS.KeystorePath = filepath.Join(s.Dir, "client.jks")
				require.NoError(t, os.Rename(filepath.Join(s.Dir, "client.p12"), o.Config.TLS.KeystorePath))
			}},
		"is a PEM key that everyone can read": {show: client,
			change: func(t *testing.T, s *service.Service, o *doctor.Options) {
				o.Config.TLS.KeystorePath = filepath.Join(s.Dir, "client-certificate.pem")
				o.Config.TLS.KeystoreKeyPath = filepath.Join(s.Dir, "client-key.pem")
				require.NoError(t, os.Chmod(o.Config.TLS.KeystoreKeyPath, 0o644))
			}},
		"has a truststore that everyone can write": {show: client,
			change: func(t *testing.T, s *service.Service, _ *doctor.Options) {
				require.NoError(t, os.Chmod(filepath.Join(s.Dir, "truststore.jks"), 0o666))
			}},
		// The way can be checked up to where the files are needed.
		"is not there": {show: client + ",tcp", change: func(_ *testing.T, s *service.Service, o *doctor.Options) {
			o.Config.TLS.KeystorePath = filepath.Join(s.Dir, "other.p12")
		}},
		"has a truststore with another password": changed(client+",tcp", func(o *doctor.Options) {
			o.Config.TLS.TruststorePassword = "swordfish"
		}),
		// The one store is judged whatever the other is like.
		"has expired, and the truststore is missing": {show: client,
			change: func(t *testing.T, s *service.Service, o *doctor.Options) {
				o.Config.TLS.TruststorePath = filepath.Join(s.Dir, "none")
				reissue(t, s, expired)
			}},
		"is missing, and so is the truststore": changed("", func(o *doctor.Options) {
			o.Config.TLS.KeystorePath, o.Config.TLS.TruststorePath = "/none/a", "/none/b"
		}),
	})
}
