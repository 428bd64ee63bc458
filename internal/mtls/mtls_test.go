package mtls

import (
	"crypto"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// shake makes a request with the client's identity to a server with the other, which must both agree.
func shake(t testing.TB, client, server *Identity, version uint16) error {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.TLS.PeerCertificates))
	}))
	s.TLS = server.ServerConfig(tls.RequireAndVerifyClientCert)
	s.TLS.MaxVersion = version
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: client.ClientConfig(), DisableKeepAlives: true}}
	resp, err := c.Get(s.URL)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := fixture.Must(io.ReadAll(resp.Body))
	assert.Equal(t, fmt.Sprint(len(client.Certificate.Certificate)), string(body), "the chain is sent whole")
	return nil
}

func TestIdentity_strangers_do_not_come_to_terms(t *testing.T) {
	s := newScene(t)
	of := func(key, trust string) *Identity {
		s.put("store", "pem "+key)
		s.put("trust", "pem "+trust)
		return fixture.Must(Load(s.files))
	}
	assert.ErrorContains(t, shake(t, of("key", "root"), of("other-key", "root"), 0),
		"certificate signed by unknown authority", "the server is a stranger")
	assert.ErrorContains(t, shake(t, of("other-key", "root"), of("key", "root"), 0),
		"remote error: tls: unknown certificate authority", "the client is a stranger")
}

func TestIdentity_configurations_refuse_old_TLS(t *testing.T) {
	i := fixture.Must(Load(newScene(t).files))
	assert.EqualValues(t, tls.VersionTLS12, i.ClientConfig().MinVersion)
	assert.EqualValues(t, tls.VersionTLS12, i.ServerConfig(tls.NoClientCert).MinVersion)
	assert.Same(t, i.Pool(), i.ClientConfig().RootCAs)
	assert.Same(t, i.Pool(), i.ServerConfig(tls.NoClientCert).ClientCAs)
}

func TestLoad_truststore_of_openssl(t *testing.T) {
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	s := newScene(t)
	s.put("pem", "pem root issuing")
	text, err := exec.Command(openssl, "pkcs12", "-export", "-nokeys", "-in", s.path("pem"),
		"-out", s.path("trust"), "-passout", "pass:"+password).CombinedOutput()
	require.NoError(t, err, string(text))
	i, err := Load(s.files)
	assert.Equal(t, "JKS with a chain of 3 for Test; PKCS12 that trusts Test Issuing CA, Test Root CA", told(t, i, err))
}

func TestLoad_stores_of_keytool(t *testing.T) {
	for _, format := range []keystore.Format{keystore.JKS, keystore.PKCS12} {
		s := newScene(t)
		keytool := func(args ...string) {
			out, err := fixture.Keytool(t, s.dir, append(args, "-storepass", password)...)
			require.NoError(t, err, out)
		}
		// The names are misleading.
		s.files.KeystorePath, s.files.TruststorePath = s.path("client.p12"), s.path("trust.pem")
		if format == keystore.PKCS12 {
			s.files.KeystorePath, s.files.TruststorePath = s.path("client.jks"), s.path("trust.jks")
		}
		keytool("-genkeypair", "-alias", "me", "-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=me",
			"-ext", "san=ip:127.0.0.1", "-ext", "bc=ca:true", "-keystore", s.files.KeystorePath,
			"-storetype", string(format), "-keypass", password)
		keytool("-exportcert", "-alias", "me", "-keystore", s.files.KeystorePath, "-file", "cert")
		keytool("-importcert", "-noprompt", "-alias", "ca", "-file", "cert",
			"-keystore", s.files.TruststorePath, "-storetype", string(format))
		i, err := Load(s.files)
		assert.Equal(t, fmt.Sprintf("%s with a chain of 1 for me; %[1]s that trusts me", format), told(t, i, err))
		assert.NoError(t, shake(t, i, i, tls.VersionTLS13))
	}
}

func TestWatcher_ServerConfig_serves_the_new_identity(t *testing.T) {
	w := newScene(t)
	w.follow("watch", "")
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = w.watcher.ServerConfig(tls.RequireAndVerifyClientCert)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	served := func(as *Identity) (string, error) {
		cfg := as.ClientConfig()
		cfg.NextProtos = []string{"h2", "http/1.1"}
		conn, err := tls.Dial("tcp", s.Listener.Addr().String(), cfg)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		state := conn.ConnectionState()
		return state.PeerCertificates[0].Subject.CommonName + " " + state.NegotiatedProtocol, nil
	}
	before := w.current()
	assert.Equal(t, "Test http/1.1", fixture.Must(served(before)))

	w.put("trust", "jks other-root")
	w.put("store", "jks other-key")
	for told(t, w.current(), nil) != "JKS with a chain of 3 for Other; JKS that trusts Other Root CA" {
		w.next()
	}
	assert.Equal(t, "Other http/1.1", fixture.Must(served(w.current())))
	_, err := served(before)
	assert.ErrorContains(t, err, "certificate signed by unknown authority")
}

func FuzzLoad(f *testing.F) {
	s := newScene(f)
	f.Add(s.made("jks key"), s.made("jks root"))
	f.Add(s.made("pem only-key"), s.made("pem root"))
	f.Add(s.made("pem key"), s.made("pem root only-key"))
	f.Fuzz(func(t *testing.T, store, trust []byte) {
		c := contents{keystore: store, truststore: trust}
		i, err := c.identity(Files{KeystorePassword: password, TruststorePassword: password})
		if err != nil {
			return
		}
		if len(i.Roots) == 0 || !pki.SameKey(i.Certificate.PrivateKey.(crypto.Signer).Public(),
			i.Certificate.Leaf.PublicKey) {
			t.Fatal("an identity without roots or with another key's certificate")
		}
	})
}

// Identities and truststores as editors, shells and other programs leave them.
func TestLoad_filesAsTheyAreFound(t *testing.T) {
	stored := func(name string) string { return filepath.Join("../../test/testdata/stores", name) }
	for name, password := range map[string]string{
		"byte-order-mark.pem": "", "utf-16.pem": "", "cr-only.pem": "", "escaped-line-ends.pem": "", "one-line.pem": "",
		"indented.pem": "", "leading-space.pem": "", "joined-key.pem": "", "dh-parameters.pem": "",
		"key-scrypt.pem": "changeit", "key-hmac-sha512-256.pem": "changeit",
		"bouncycastle-ber.p12": "changeit", "mac-sha512-256.p12": "changeit", "sha1-2des.p12": "changeit",
	} {
		t.Run(name, func(t *testing.T) {
			identity, err := LoadKeystore(Files{KeystorePath: stored(name), KeystorePassword: password})
			require.NoError(t, err)
			assert.NotNil(t, identity.Certificate.PrivateKey)
			assert.NotEmpty(t, identity.Certificate.Certificate)
			if filepath.Ext(name) == ".pem" {
				// The key may be in a file of its own, too.
				_, err = LoadKeystore(Files{KeystorePath: stored(name),
					KeystoreKeyPath: stored(name), KeystorePassword: password})
				require.NoError(t, err)
			}
		})
	}
	for name, password := range map[string]string{
		"byte-order-mark-trusted.pem": "", "crl.pem": "", "joined.pem": "", "trusted-certificate.pem": "",
		"x509-certificate.pem": "", "bouncycastle-ber-trusted.p12": "changeit", "null-password.p12": "",
		// Its key cannot be read, and nothing asks for it.
		"key-md5-des.pem": "",
	} {
		t.Run(name, func(t *testing.T) {
			identity, err := LoadRoots(Files{TruststorePath: stored(name), TruststorePassword: password})
			require.NoError(t, err)
			assert.NotEmpty(t, identity.Roots)
			assert.Empty(t, identity.Skipped)
		})
	}
}
