package doctor_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/service"
)

// reissue gives the client another certificate of the CA that the CertService trusts.
func reissue(t *testing.T, s *service.Service, change func(leaf *x509.Certificate)) {
	t.Helper()
	s.Transport.Change = change
	key, chain, err := s.Transport.Identity("certfetcher")
	require.NoError(t, err)
	require.NoError(t, service.WriteIdentity(s.Dir, key, chain, s.Transport.Root))
}

func TestRun_clientCertificate(t *testing.T) {
	long := func(leaf *x509.Certificate) { leaf.NotAfter = leaf.NotBefore.AddDate(1, 0, 0) }
	for sentence, row := range map[string]struct {
		change  func(leaf *x509.Certificate)
		later   time.Duration // how much later it is by our clock
		check   string
		status  doctor.Status
		found   string
		code    int
		refused bool // by the CertService as well
	}{
		"is valid for long": {change: long, check: "client expiry", status: doctor.OK, found: `"CN=certfetcher" is valid until …, for 364 days`},
		"expires soon": {
			change: func(leaf *x509.Certificate) { leaf.NotBefore = leaf.NotAfter.AddDate(0, 0, -90) },
			check:  "client expiry", status: doctor.Warning, found: `"CN=certfetcher" is valid until …, for 24h0m0s`,
		},
		"has expired": {
			change: func(leaf *x509.Certificate) {
				leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			},
			check: "client expiry", status: doctor.Failed, found: `"CN=certfetcher" expired at …Z`, code: 9, refused: true,
		},
		"is a server's": {
			change: func(leaf *x509.Certificate) { leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
			check:  "client usage", status: doctor.Warning, found: "the certificate's extendedKeyUsage lacks clientAuth", code: 6, refused: true,
		},
		"may not sign": {
			change: func(leaf *x509.Certificate) { leaf.KeyUsage = x509.KeyUsageKeyEncipherment },
			check:  "client usage", status: doctor.Warning, found: "the certificate's keyUsage lacks digitalSignature",
		},
		"is for any use": {
			change: func(leaf *x509.Certificate) { leaf.ExtKeyUsage = nil },
			check:  "client usage", status: doctor.OK, found: "the certificate is not limited in its use",
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, service.Options{})
			reissue(t, s, row.change)
			report, checks := run(t, o)
			assert.Equal(t, row.status, checks[row.check].Status)
			requireText(t, row.found, checks[row.check].Found)
			assert.Equal(t, row.code, report.ExitCode())
			assert.Equal(t, row.refused, checks["client accepted"].Status == doctor.Failed)
		})
	}
}

func TestRun_chain(t *testing.T) {
	s, o := start(t, service.Options{})
	o.Config.TLS.KeystorePath = filepath.Join(s.Dir, "client.jks")
	key, chain, err := s.Transport.Identity("certfetcher")
	require.NoError(t, err)
	namesake, err := ca.New("Transport")
	require.NoError(t, err)
	for sentence, row := range map[string]struct {
		chain  []*x509.Certificate
		status doctor.Status
		found  string
	}{
		"with the root":            {append(chain[:2:2], s.Transport.Root), doctor.OK, `complete: 3 certificates, up to the root "CN=Transport Root CA,O=Throwaway"`},
		"without the root":         {chain, doctor.OK, `2 sent, up to one issued by "CN=Transport Root CA,O=Throwaway"; it is in TRUSTSTORE_PATH`},
		"without the intermediate": {chain[:1], doctor.OK, `1 sent, up to one issued by "CN=Transport Issuing CA,O=Throwaway"; it is not in TRUSTSTORE_PATH, so the CertService has to know it`},
		"with an intermediate of another key": {[]*x509.Certificate{chain[0], namesake.Issuing}, doctor.Warning,
			`"CN=certfetcher" is not signed by "CN=Transport Issuing CA,O=Throwaway", which follows it in KEYSTORE_PATH (x509: ECDSA verification failure)`},
	} {
		t.Run(sentence, func(t *testing.T) {
			require.NoError(t, service.WriteIdentity(s.Dir, key, row.chain, s.Transport.Root))
			_, checks := run(t, o)
			assert.Equal(t, row.status, checks["client chain"].Status)
			assert.Equal(t, row.found, checks["client chain"].Found)
		})
	}
}

func TestRun_mutualTLSFiles(t *testing.T) {
	for sentence, row := range map[string]struct {
		change func(t *testing.T, dir string, o *doctor.Options)
		check  string
		status doctor.Status
		found  string // {dir} stands for where the files are
		code   int
	}{
		"a PKCS#12 file named .jks": {func(t *testing.T, dir string, o *doctor.Options) {
			require.NoError(t, os.Rename(filepath.Join(dir, "client.p12"), filepath.Join(dir, "client.jks")))
			o.Config.TLS.KeystorePath = filepath.Join(dir, "client.jks")
		}, "keystore", doctor.OK, `"{dir}/client.jks" is PKCS12 in spite of its name, which does no harm, mode 0600; ECDSA-P256 key of "CN=certfetcher"`, 0},
		"a PEM key that everybody can read": {func(t *testing.T, dir string, o *doctor.Options) {
			require.NoError(t, os.Chmod(filepath.Join(dir, "client-key.pem"), 0o644))
			o.Config.TLS.KeystorePath = filepath.Join(dir, "client-certificate.pem")
			o.Config.TLS.KeystoreKeyPath = filepath.Join(dir, "client-key.pem")
		}, "keystore", doctor.Warning, `"{dir}/client-certificate.pem" is PEM, mode 0600; ECDSA-P256 key of "CN=certfetcher"; "{dir}/client-key.pem" is PEM, mode 0644; every user can read the private key`, 0},
		"a truststore that everybody can write": {func(t *testing.T, dir string, _ *doctor.Options) {
			require.NoError(t, os.Chmod(filepath.Join(dir, "truststore.jks"), 0o666))
		}, "truststore", doctor.Warning, `"{dir}/truststore.jks" is JKS, mode 0666; trusts "CN=Transport Root CA,O=Throwaway"; every user can replace it`, 0},
		"a keystore that is not there": {func(t *testing.T, dir string, o *doctor.Options) {
			o.Config.TLS.KeystorePath = filepath.Join(dir, "other.p12")
		}, "keystore", doctor.Failed, `KEYSTORE_PATH "{dir}/other.p12" does not exist: check the path and the volume mounted there (open {dir}/other.p12: no such file or directory)`, 9},
		"a truststore with another password": {func(t *testing.T, _ string, o *doctor.Options) {
			o.Config.TLS.TruststorePassword = "swordfish"
		}, "truststore", doctor.Failed, `TRUSTSTORE_PATH "{dir}/truststore.jks" is not opened by TRUSTSTORE_PASSWORD: …`, 9},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, service.Options{})
			row.change(t, s.Dir, &o)
			report, checks := run(t, o)
			assert.Equal(t, row.status, checks[row.check].Status)
			requireText(t, expand(row.found, s.Dir), checks[row.check].Found)
			assert.Equal(t, row.code, report.ExitCode())
			assert.NotContains(t, text(t, report), "swordfish")
			if row.status == doctor.Failed {
				// The way can be checked up to where the files are needed.
				requireOutcomes(t, checks, map[string]doctor.Status{"tcp": doctor.OK, "tls": doctor.Skipped, "clock": doctor.Skipped})
			}
		})
	}
}

// The one store is judged whatever the other is like.
func TestRun_oneStoreUnusable_doesNotHideTheOther(t *testing.T) {
	s, o := start(t, service.Options{})
	o.Config.TLS.TruststorePath = filepath.Join(s.Dir, "none")
	reissue(t, s, func(leaf *x509.Certificate) {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	_, checks := run(t, o)
	requireOutcomes(t, checks, map[string]doctor.Status{
		"truststore": doctor.Failed, "keystore": doctor.OK, "client chain": doctor.OK, "client expiry": doctor.Failed, "client usage": doctor.OK,
	})
	assert.Equal(t, `2 sent, up to one issued by "CN=Transport Root CA,O=Throwaway"; whether it is in TRUSTSTORE_PATH is not known`, checks["client chain"].Found)

	o.Config.TLS.TruststorePath, o.Config.TLS.KeystorePath = filepath.Join(s.Dir, "truststore.jks"), filepath.Join(s.Dir, "none")
	_, checks = run(t, o)
	requireOutcomes(t, checks, map[string]doctor.Status{
		"truststore": doctor.OK, "keystore": doctor.Failed, "client chain": doctor.Skipped, "client expiry": doctor.Skipped, "client usage": doctor.Skipped,
	})
}

func TestRun_bothStoresUnusable_areBothReported(t *testing.T) {
	s, o := start(t, service.Options{})
	o.Config.TLS.KeystorePath, o.Config.TLS.TruststorePath = filepath.Join(s.Dir, "a"), filepath.Join(s.Dir, "b")
	_, checks := run(t, o)
	requireOutcomes(t, checks, map[string]doctor.Status{"keystore": doctor.Failed, "truststore": doctor.Failed})
}

func TestRun_expiredAnchor_isAWarning(t *testing.T) {
	s, o := start(t, service.Options{})
	o.Now = func() time.Time { return time.Now().AddDate(11, 0, 0) }
	_, checks := run(t, o)
	assert.Equal(t, doctor.Warning, checks["truststore"].Status)
	assert.Contains(t, checks["truststore"].Found, `; expired: "`+s.Transport.Root.Subject.String()+`" (`)
	assert.Equal(t, doctor.Failed, checks["clock"].Status, "the server's certificate was valid, only not by this clock")
}
