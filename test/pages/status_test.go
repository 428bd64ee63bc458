package pages

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var (
	binDir      string
	screenshots = flag.Bool("screenshots", false, "write the pictures of the pages into docs/images")
)

func TestMain(m *testing.M) { fixture.RunTests(m, &binDir) }

// stack is a certservice with several CAs, and a client of it.
type stack struct {
	*fixture.Stack
	t      testing.TB
	dir    string
	client *http.Client
	asked  int // certificates
}

// startStack starts a certservice and a devca; the other CAs are changes of its entry.
func startStack(t testing.TB, others []map[string]any, environment ...string) *stack {
	t.Helper()
	s := &stack{t: t, dir: t.TempDir()}
	authority, entry, err := fixture.StartDevCA(binDir, s.dir)
	require.NoError(t, err)
	t.Cleanup(authority.Stop)
	entries := []map[string]any{entry}
	for _, other := range others {
		changed := maps.Clone(entry)
		maps.Copy(changed, other)
		entries = append(entries, changed)
	}
	s.Stack, err = fixture.StartCertServiceOf(binDir, s.dir, entries, environment...)
	require.NoError(t, err)
	t.Cleanup(s.CertService.Stop)
	identity, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, "client-certificate.pem"),
		filepath.Join(s.Dir, "client-key.pem"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(fixture.Must(os.ReadFile(filepath.Join(s.Dir, "truststore.pem")))))
	s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots,
		Certificates: []tls.Certificate{identity}}}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// enroll asks for a certificate and returns the status.
func (s *stack) enroll(ca, name string) int {
	s.t.Helper()
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	csr := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key))
	encoded := func(label string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	request := fixture.Must(http.NewRequest(http.MethodGet, s.URL+url.PathEscape(ca), nil))
	request.Header.Set("CSR", encoded("CERTIFICATE REQUEST", csr))
	s.asked++
	request.Header.Set("X-Request-Id", fmt.Sprintf("request-%d", s.asked))
	request.Header.Set("PK", encoded("PRIVATE KEY", fixture.Must(x509.MarshalPKCS8PrivateKey(key))))
	answer := fixture.Must(s.client.Do(request))
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

// page is the address of a page of the plain port.
func (s *stack) page(path string) string { return "http://" + s.Operations + path }

// hostileName is the caName of a server that is configured by somebody careless.
const hostileName = `<img src=x onerror="document.title='owned'">`

// hostile is a CMP server whose answers hold markup wherever one may put it.
func hostile(t testing.TB) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", `text/<script>document.title="owned"</script>`)
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, `</style></title><script>document.title="owned"</script><base href="http://192.0.2.1/">`)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

const policyText = `rules:
  - name: example
    clients: [{subject: {commonName: "*"}}]
    cas: ["*"]
    operations: [enroll, update]
    allow: {dns: ["*.example.org"]}
`

// status is /status.json.
func (s *stack) status() (fields struct {
	Authorities []struct {
		Name, State, URL string
		Requests         map[string]int
		LastError        struct{ Text string }
	}
	Readings []struct{ What, Holds, Version, Fault string }
	Requests []struct{ CA, Operation, Outcome string }
}) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal(s.get("/status.json"), &fields))
	return fields
}

func (s *stack) get(path string) []byte {
	s.t.Helper()
	answer := fixture.Must(http.Get(s.page(path)))
	defer answer.Body.Close()
	require.Equal(s.t, http.StatusOK, answer.StatusCode)
	return fixture.Must(io.ReadAll(answer.Body))
}

// hasNoStatus checks that the root leads to the API's page, and that there is no status.
func (s *stack) hasNoStatus() {
	s.t.Helper()
	assert.Equal(s.t, s.get("/api"), s.get("/"))
	for _, path := range []string{"/status", "/status.json"} {
		answer := fixture.Must(http.Get(s.page(path)))
		answer.Body.Close()
		assert.Equal(s.t, http.StatusNotFound, answer.StatusCode, path)
	}
}

// given is a stack that has issued and refused, with CAs that fail, and a policy that was replaced by a faulty one.
func given(t *testing.T) *stack {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(policy, []byte(policyText), 0o600))
	s := startStack(t, []map[string]any{
		{"caName": "Partner", "authentication": map[string]string{"iak": "partners-iak", "rv": "partner"}},
		{"caName": "Factory", "url": "http://127.0.0.1:1/cmp?token=very-secret"},
		{"caName": "Standby"},
		{"caName": hostileName, "url": hostile(t)},
	}, "POLICY_PATH="+policy)
	for _, row := range []struct {
		ca, name string
		status   int
	}{
		{"Factory", "press-2.example.org", http.StatusInternalServerError},
		{hostileName, "app.example.org", http.StatusInternalServerError},
		{"Nowhere", "app.example.org", http.StatusNotFound},
		{fixture.CAName, "billing.example.org", http.StatusOK},
		{fixture.CAName, "orders.example.org", http.StatusOK},
		{fixture.CAName, "elsewhere.example.net", http.StatusForbidden},
		{"Partner", "gateway.example.org", http.StatusInternalServerError},
		{fixture.CAName, "stock.example.org", http.StatusOK},
	} {
		require.Equal(t, row.status, s.enroll(row.ca, row.name), row)
	}
	require.NoError(t, os.WriteFile(policy, []byte("rules: <b>nothing</b>\n"), 0o600))
	faulty := func() bool { return s.status().Readings[2].Fault != "" }
	require.Eventually(t, faulty, 20*time.Second, 20*time.Millisecond)
	return s
}

func TestPages_inABrowser(t *testing.T) {
	t.Parallel()
	b, s := startBrowser(t), given(t)
	for _, path := range []string{"/", "/api"} {
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int{360, 1100} {
				p := b.open(width, scheme)
				p.load(s.page(path))
				p.isWhole(fmt.Sprintf("%s %s %d", path, scheme, width), s.page(path), width)
			}
		}
	}
	p := b.open(1100, "light")
	p.load(s.page("/"))
	s.isShown(p)
	p.load(s.page("/status?refresh=off"))
	assert.Contains(t, p.texts("main > .muted")[0], "Paused")
	for _, path := range []string{"/", "/status.json"} {
		assertNoSecrets(t, string(s.get(path)))
	}
	if *screenshots {
		s := startStack(t, []map[string]any{{"caName": "Factory", "url": "http://127.0.0.1:1/cmp"}})
		for _, name := range []string{"billing", "orders", "stock"} {
			require.Equal(t, http.StatusOK, s.enroll(fixture.CAName, name+".example.org"))
		}
		require.Equal(t, http.StatusInternalServerError, s.enroll("Factory", "press.example.org"))
		s.photograph(b)
	}
}

// isShown checks what the status page says of what given did.
func (s *stack) isShown(p *tab) {
	t := s.t
	t.Helper()
	assert.Equal(t, "Ready · certservice", p.value("document.title"))
	assert.Equal(t, []string{hostileName + " failing", "Factory failing", "Partner refusing", "Standby not asked yet",
		"RA issuing"}, p.texts(".title"))
	assert.Equal(t, []string{"1 failed", "1 failed", "1 refused", "none since the start", "1 forbidden 3 issued"},
		p.texts(".cards dl div:last-child dd"))
	assert.Contains(t, p.texts(".note.bad .text")[0], `"text/<script>document.title=\"owned\"</script>"`)
	assert.Equal(t, []string{"TLS files", "CAs", "Policy"}, p.texts("#files ~ table tbody th"))
	assert.Equal(t, []string{"yes", "5 CAs", "1 rule"}, p.texts("#files ~ table td[data-label='In use']"))
	assert.Contains(t, p.texts(".fault")[0], "what is in use stays")
	assert.Equal(t, []string{"issued", "refused", "forbidden", "issued", "issued", "unknown_ca", "failed", "failed"},
		p.texts("td[data-label=Outcome]"))
	assert.Equal(t, []string{"RA", "Partner", "RA", "RA", "RA", "–", hostileName, "Factory"},
		p.texts("td[data-label=CA]"))
	assert.Equal(t, "request-1", p.texts("td[data-label='Request id']")[7])
	assert.Equal(t, "request-2", p.texts(".note.bad .mono")[0])
}

// assertNoSecrets looks for what the service knows and the pages must not say.
func assertNoSecrets(t *testing.T, page string) {
	t.Helper()
	for _, secret := range []string{"very-secret", "demonstration", "partners-iak", fixture.Password, "orders",
		"billing", "PRIVATE KEY", "CERTIFICATE REQUEST"} {
		assert.NotContains(t, page, secret)
	}
}

// isWhole checks a page in a tab: nothing was refused or asked for elsewhere, all of it fits, can be read, and is
// marked up for those who do not see it.
func (p *tab) isWhole(what, url string, width int) {
	p.t.Helper()
	p.mu.Lock()
	assert.Empty(p.t, p.faults, what)
	assert.Subset(p.t, []string{url, "data:,"}, p.asked, what) // the latter is the icon
	p.mu.Unlock()
	assert.EqualValues(p.t, 0, p.value("document.scripts.length"), what)
	scrolls := p.value("document.documentElement.scrollWidth")
	assert.LessOrEqual(p.t, scrolls, float64(width), "%s scrolls sideways", what)
	assert.Equal(p.t, []any{}, p.value(string(fixture.Must(os.ReadFile("testdata/faults.js")))), what)
}

// photograph writes the pictures of the documents, of a service whose CAs have sensible names.
func (s *stack) photograph(b *browser) {
	for _, shot := range []struct {
		name, path, scheme string
		width, most        int
	}{
		{"status", "/status", "light", 1100, 1500},
		{"status-phone", "/status", "dark", 390, 844},
		{"api", "/api", "light", 1100, 1300},
	} {
		p := b.open(shot.width, shot.scheme)
		p.load(s.page(shot.path))
		picture := fixture.Must(png.Decode(bytes.NewReader(p.picture(shot.width, shot.most))))
		var small bytes.Buffer
		require.NoError(s.t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, withPalette(picture)))
		require.Less(s.t, small.Len(), mostPictureBytes)
		require.NoError(s.t, os.WriteFile(filepath.Join("../../docs/images", shot.name+".png"), small.Bytes(), 0o644))
	}
}

// mostPictureBytes bounds each picture in the repository.
const mostPictureBytes = 150_000

// withPalette is a picture in its 256 most frequent colors, which takes a third of the room.
func withPalette(picture image.Image) image.Image {
	counts, bounds := map[color.RGBA]int{}, picture.Bounds()
	exact := image.NewRGBA(bounds)
	draw.Draw(exact, bounds, picture, bounds.Min, draw.Src)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			counts[exact.RGBAAt(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(counts), func(a, b color.RGBA) int { return counts[b] - counts[a] })
	palette := color.Palette{}
	for _, c := range colors[:min(len(colors), 256)] {
		palette = append(palette, c)
	}
	nearest := map[color.RGBA]uint8{}
	for _, c := range colors {
		nearest[c] = uint8(palette.Index(c))
	}
	small := image.NewPaletted(bounds, palette)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			small.SetColorIndex(x, y, nearest[exact.RGBAAt(x, y)])
		}
	}
	return small
}
