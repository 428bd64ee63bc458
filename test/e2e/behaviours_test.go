package e2e

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// behaviour stands between the client and a CertService that would answer as it should.
type behaviour func(s *service.Service, next http.Handler) http.Handler

// behaviours are what the script command certservice can be told to do.
var behaviours = map[string]behaviour{
	"huge": always("200", "application/json", `{"certificateChain":["`+strings.Repeat("A", 5<<20)+`"]}`),
	"redirect": serves(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example/v1/", http.StatusFound)
	}),
	"hang":       serves(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	"hang-up":    serves(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	"busy-twice": busyTwice,
	"echo-header": serves(func(w http.ResponseWriter, r *http.Request) {
		conn := hijack(w)
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nDate: today\r\n%s\r\n\r\n", r.Header.Get("PK"))
	}),
	"echo-label": serves(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("PK")
		chain := []string{fmt.Sprintf("-----BEGIN %s-----\nAA==\n-----END %s-----\n", key, key)}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer{chain, chain})
	}),

	"another-key":     changed(func(s *service.Service, a *answer) { a.Chain[0] = forAnotherKey(s) }),
	"link-missing":    changed(func(_ *service.Service, a *answer) { a.Chain = a.Chain[:1] }),
	"untrusted-root":  changed(func(_ *service.Service, a *answer) { a.Trusted = []string{foreignRoot()} }),
	"wrong-order":     changed(func(_ *service.Service, a *answer) { a.Chain[0], a.Chain[1] = a.Chain[1], a.Chain[0] }),
	"root-in-chain":   changed(func(_ *service.Service, a *answer) { a.Chain = append(a.Chain, a.Trusted...) }),
	"additional-root": changed(func(_ *service.Service, a *answer) { a.Trusted = append(a.Trusted, foreignRoot()) }),
	"unusable-roots": changed(func(_ *service.Service, a *answer) {
		a.Trusted = append(a.Trusted, unusableRoots()...)
	}),
	"duplicates": changed(func(_ *service.Service, a *answer) {
		a.Chain, a.Trusted = append(a.Chain, a.Chain[1]), append(a.Trusted, a.Trusted[0])
	}),

	"expired": signs(func(l *x509.Certificate) {
		l.NotBefore, l.NotAfter = from(-48*time.Hour), from(-24*time.Hour)
	}),
	"not-yet-valid": signs(func(l *x509.Certificate) {
		l.NotBefore, l.NotAfter = from(time.Hour), from(48*time.Hour)
	}),
	"clock-ahead": signs(func(l *x509.Certificate) { l.NotBefore = from(2 * time.Minute) }),
	"two-thirds-gone": signs(func(l *x509.Certificate) {
		l.NotBefore, l.NotAfter = from(-3*time.Hour), from(time.Hour)
	}),
	"names-missing":  signs(func(l *x509.Certificate) { l.DNSNames = nil }),
	"ca-certificate": signs(func(l *x509.Certificate) { l.IsCA = true; l.KeyUsage |= x509.KeyUsageCertSign }),
	"subject-extended": signs(func(l *x509.Certificate) {
		l.RawSubject, l.Subject = nil, pkix.Name{CommonName: "app.example.org", OrganizationalUnit: []string{"Policy"}}
	}),
	"subject-shortened": signs(func(l *x509.Certificate) {
		l.RawSubject, l.Subject = nil, pkix.Name{CommonName: "app.example.org"}
	}),
	"subject-reordered": signs(func(l *x509.Certificate) {
		l.RawSubject, l.Subject = nil, pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "app.example.org"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "SE"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Another"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "Policy"},
		}}
	}),
	"names-added": signs(func(l *x509.Certificate) {
		l.DNSNames = append(l.DNSNames, "added.example.org")
		l.EmailAddresses = append(l.EmailAddresses, "ops@example.org")
	}),
	"for-ever": signs(func(l *x509.Certificate) {
		l.NotBefore = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)
		l.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}),
	"other-subject": signs(func(l *x509.Certificate) {
		l.RawSubject, l.Subject = nil, pkix.Name{CommonName: "other.example.org"}
	}),
}

func from(d time.Duration) time.Time { return time.Now().Add(d) }

// hijack takes a connection over from its server.
func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	return fixture.Must(conn, err)
}

// serves answers in the CertService's place.
func serves(serve http.HandlerFunc) behaviour {
	return func(*service.Service, http.Handler) http.Handler { return serve }
}

func always(status, mediaType, body string) behaviour {
	code := fixture.Must(strconv.Atoi(status))
	return serves(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(code)
		io.WriteString(w, body)
	})
}

func busyTwice(_ *service.Service, next http.Handler) http.Handler {
	var count atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if count.Add(1) <= 2 {
			w.Header().Set("Retry-After", "0")
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// signs has the CA change each leaf before it signs.
func signs(change func(leaf *x509.Certificate)) behaviour {
	return func(s *service.Service, next http.Handler) http.Handler {
		s.CA.Change = change
		return next
	}
}

// answer is the CertService's, on its way to the client.
type answer struct {
	Chain   []string `json:"certificateChain"`
	Trusted []string `json:"trustedCertificates"`
}

// changed changes what a good CertService answered.
func changed(change func(*service.Service, *answer)) behaviour {
	return func(s *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorded := httptest.NewRecorder()
			next.ServeHTTP(recorded, r)
			var a answer
			if err := json.Unmarshal(recorded.Body.Bytes(), &a); err != nil {
				panic(err)
			}
			change(s, &a)
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(a)
		})
	}
}

func forAnotherKey(s *service.Service) string {
	_, chain, err := s.CA.Identity("app.example.org")
	if err != nil {
		panic(err)
	}
	return string(fixture.CertificatesPEM(chain[0]))
}

// unusableRoots are of kinds that Go knows not, the first two in one element, as the API can be read.
func unusableRoots() []string {
	var texts []string
	for _, name := range []string{"negative-serial", "ecacc", "ed448", "brainpool"} {
		texts = append(texts, string(fixture.Must(os.ReadFile("../testdata/certificates/"+name+".pem"))))
	}
	return append([]string{texts[0] + texts[1]}, texts[2:]...)
}

func foreignRoot() string {
	return string(fixture.CertificatesPEM(fixture.Must(fixture.NewCA("Foreign")).Root))
}
