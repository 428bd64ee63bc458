package cmp

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// forms are how a private key may appear in what travels: as it is, in DER and PEM, and in Base64 of
// each, at all three alignments.
func forms(key *ecdsa.PrivateKey) map[string][]byte {
	pkcs8, sec1 := fixture.Must(x509.MarshalPKCS8PrivateKey(key)), fixture.Must(x509.MarshalECPrivateKey(key))
	plain := map[string][]byte{"raw": fixture.Must(key.Bytes()), "PKCS#8": pkcs8, "SEC 1": sec1,
		"PEM of PKCS#8": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})[28:120],
		"PEM of SEC 1":  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})[31:120]}
	all := map[string][]byte{}
	for name, form := range plain {
		all[name] = form
		for shift, alignment := range []string{"first", "second", "third"} {
			encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), form...))
			all[name+" in Base64, at the "+alignment+" place"] = []byte(encoded[4 : len(encoded)-4]) // whole groups
		}
	}
	return all
}

// recorder stands before a server, ends TLS, and keeps the plaintext of all that passes.
type recorder struct{ fixture.Buffer }

func (r *recorder) found(key *ecdsa.PrivateKey) (names []string) {
	for name, form := range forms(key) {
		if r.contains(form) {
			names = append(names, name)
		}
	}
	return names
}

func (r *recorder) contains(form []byte) bool {
	return strings.Contains(r.String(), string(form))
}

// before returns the address of a recorder before a server. identity is for TLS on both sides; nil is
// for none.
func (r *recorder) before(t *testing.T, server string, identity *tls.Certificate) string {
	target := fixture.Must(url.Parse(server))
	proxy := &httputil.ReverseProxy{
		Rewrite: func(out *httputil.ProxyRequest) {
			out.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host})
			_, _ = r.Write(fixture.Must(httputil.DumpRequest(out.In, true)))
			out.Out.Body = out.In.Body
		},
		ModifyResponse: func(response *http.Response) error {
			_, err := r.Write(fixture.Must(httputil.DumpResponse(response, true)))
			return err
		},
	}
	s := httptest.NewUnstartedServer(proxy)
	t.Cleanup(s.Close)
	if identity == nil {
		s.Start()
		return s.URL
	}
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{*identity},
		InsecureSkipVerify: true}} // it is about what is sent, and to whom does not matter
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*identity}, ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	return s.URL
}

// The private key is in nothing that travels with PROTOCOL=cmp, neither to a CA nor to a CertService, nor
// between these two. The same search finds it in the header of the CertService's own API.
func TestKey_travelsWithTheV1APIOnly(t *testing.T) {
	dir := t.TempDir()
	devCA, entry, err := fixture.StartDevCA(binDir, dir)
	require.NoError(t, err)
	t.Cleanup(devCA.Stop)
	ca := "http://" + devCA.Event("address")
	var behind recorder // between the CertService and the CA
	entry["url"] = behind.before(t, ca, nil) + "/pkix/"
	stack, err := fixture.StartCertService(binDir, dir, entry)
	require.NoError(t, err)
	t.Cleanup(stack.CertService.Stop)
	identity := fixture.Must(tls.LoadX509KeyPair(filepath.Join(stack.Dir, "client-certificate.pem"),
		filepath.Join(stack.Dir, "client-key.pem")))
	anchors := "CMP_TRUST_ANCHORS=" + filepath.Join(dir, "devca-root.pem")
	for _, row := range []struct {
		name, server string
		identity     *tls.Certificate
		environment  func(url string) []string
		travels      bool
	}{
		{"directly", ca, nil, func(url string) []string {
			return []string{"PROTOCOL=cmp", "CMP_URL=" + url + "/pkix/", "CMP_REFERENCE=" + fixture.CAName,
				"CMP_SECRET=demonstration", "CMP_RECIPIENT=CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY"}
		}, false},
		{"through a CertService", stack.URL, &identity, func(url string) []string {
			return []string{"PROTOCOL=cmp", "CMP_URL=" + url + "/.well-known/cmp/p/RA", anchors,
				"CMP_RECIPIENT=CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY"}
		}, false},
		{"by the API of a CertService", stack.URL, &identity, func(url string) []string {
			return []string{"REQUEST_URL=" + url + "/v1/certificate/"}
		}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			var r recorder
			volume := t.TempDir()
			run := exec.Command(filepath.Join(binDir, "certfetcher"))
			run.Env = append(fixture.Environment(stack.URL, stack.Dir, volume), "OUTPUT_TYPE=PEM")
			run.Env = append(run.Env, row.environment(r.before(t, row.server, row.identity))...)
			out, err := run.CombinedOutput()
			require.NoError(t, err, string(out))
			block, _ := pem.Decode(fixture.Must(os.ReadFile(filepath.Join(volume, "key.pem"))))
			key := fixture.Must(x509.ParsePKCS8PrivateKey(block.Bytes)).(*ecdsa.PrivateKey)
			assert.Equal(t, row.travels, len(r.found(key)) > 0, "to the server: %q", r.found(key))
			assert.Empty(t, behind.found(key), "the key goes no further than to a CertService")
			public := fixture.Must(key.PublicKey.Bytes())
			assert.Equal(t, !row.travels, r.contains(public), "this travels, but in the API in Base64")
			assert.Equal(t, row.identity != nil, behind.contains(public))
		})
	}
}
