package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/ejbca"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// behaviour is what a service does in place of what it should, which is next.
type behaviour func(s *scene, next http.Handler, w writer, r *http.Request)

type writer = http.ResponseWriter

func isUpdate(r *http.Request) bool { return strings.Contains(r.URL.Path, "certificate-update") }

// ofUpdates has a handler answer the requests for updates.
func ofUpdates(answer http.HandlerFunc) behaviour {
	return func(s *scene, next http.Handler, w http.ResponseWriter, r *http.Request) {
		if !isUpdate(r) {
			next.ServeHTTP(w, r)
			return
		}
		s.arrived <- struct{}{}
		answer(w, r)
	}
}

// answer CODE TEXT [HEADER VALUE] has the service answer updates like this from now on.
func answer(s *scene, _ bool, args []string) {
	code := s.number(args[0])
	s.behave(ofUpdates(func(w writer, _ *http.Request) {
		if len(args) > 2 {
			w.Header().Set(args[2], args[3])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, args[1])
	}))
}

func (s *scene) behave(does behaviour) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.does = does
}

// behaviours are what the command behave takes.
var behaviours = map[string]behaviour{"": nil, "corrected": nil,
	"hang": ofUpdates(func(_ writer, r *http.Request) { <-r.Context().Done() }),
	"hold-updates": func(s *scene, next http.Handler, w http.ResponseWriter, r *http.Request) {
		if isUpdate(r) {
			s.arrived <- struct{}{}
			for s.behaviour() != nil {
				<-time.After(time.Millisecond)
			}
		}
		next.ServeHTTP(w, r)
	},
	"answer-elsewhere": func(_ *scene, next http.Handler, w http.ResponseWriter, r *http.Request) {
		if isUpdate(r) {
			http.NotFound(w, r)
			return
		}
		r.URL.Path = strings.Replace(r.URL.Path, "/elsewhere/", "/v1/certificate-update/", 1)
		next.ServeHTTP(w, r)
	},
	"know-the-identity-only": func(s *scene, next http.Handler, w writer, r *http.Request) {
		s.mutex.Lock()
		known := s.knows == pki.Serial(r.TLS.PeerCertificates[0])
		s.mutex.Unlock()
		if isUpdate(r) && !known {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	},
	// A CA that rolls over to its next root has both trusted for a while.
	"trust-the-next-root": func(_ *scene, next http.Handler, w writer, r *http.Request) {
		recorder := httptest.NewRecorder()
		next.ServeHTTP(recorder, r)
		var answer map[string][]string
		if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer["trustedCertificates"] = append(answer["trustedCertificates"],
			string(fixture.CertificatesPEM(nextCA.Root)))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	},
}

var nextCA, begin = mustCA("Next"), time.Now()

func mustCA(name string) *fixture.CA { return fixture.Must(fixture.NewCA(name)) }

func (s *scene) behaviour() behaviour {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.does
}

// leaves are what the command life takes besides durations.
var leaves = map[string]func(leaf *x509.Certificate, issued int){
	// A certificate without a planned end is valid to the last second of the year 9999 (RFC 5280, 4.1.2.5).
	"for-ever": func(leaf *x509.Certificate, _ int) {
		leaf.NotBefore, leaf.NotAfter = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC),
			time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	},
	"changed": func(leaf *x509.Certificate, _ int) { // what was requested counts
		leaf.RawSubject, leaf.Subject = nil, pkix.Name{CommonName: "app.example.org",
			OrganizationalUnit: []string{"Policy"}}
		leaf.DNSNames = append(leaf.DNSNames, "added.example.org")
	},
	"a-minute-later-each": func(leaf *x509.Certificate, issued int) {
		leaf.NotBefore = begin.Add(time.Duration(issued-30) * time.Minute)
		leaf.NotAfter = leaf.NotBefore.Add(2 * time.Hour)
		leaf.DNSNames = append(leaf.DNSNames, "added.example.org")
	},
}

// life TIME [PASSED] has certificates live so long, of which some has passed. Those that follow are of one of leaves.
func life(s *scene, _ bool, args []string) {
	change, found := leaves[args[0]]
	if !found {
		whole, err := time.ParseDuration(args[0])
		s.ts.Check(err)
		passed, err := time.ParseDuration(append(args, "0")[1])
		s.ts.Check(err)
		change = func(leaf *x509.Certificate, _ int) {
			leaf.NotBefore = time.Now().Add(-passed)
			leaf.NotAfter = leaf.NotBefore.Add(whole)
		}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.leaf = change
}

func (s *scene) change(leaf *x509.Certificate) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	leaf.NotBefore = time.Now()
	leaf.NotAfter = leaf.NotBefore.Add(time.Hour)
	s.signed++
	if s.leaf != nil {
		s.leaf(leaf, s.signed)
	}
}

// forgetful is an authority that answers an update with the names that it registered last for the subject, as EJBCA
// does where replicas share one; until its profile is corrected.
type forgetful struct {
	service.Authority
	scene   *scene
	refuses bool // its answer is checked by the CertService, else by the client alone
}

func (a forgetful) corrected() bool {
	a.scene.mutex.Lock()
	defer a.scene.mutex.Unlock()
	return a.scene.corrected
}

// Enroll refuses once the profile was corrected, as in EJBCA's client mode, where a secret enrols once.
func (a forgetful) Enroll(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	if a.corrected() {
		return certservice.Issued{}, &certservice.RefusedError{Text: "wrong status"}
	}
	return a.Authority.Enroll(ctx, r)
}

func (a forgetful) Update(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	if a.corrected() {
		return a.Authority.Update(ctx, r)
	}
	if a.refuses {
		return certservice.Issued{}, &certservice.FailedError{Err: io.EOF, Reason: certservice.ReasonNames}
	}
	other := *a.CA
	other.Change = func(leaf *x509.Certificate) {
		leaf.DNSNames, leaf.IPAddresses = []string{"replica-2.example.org"}, nil
	}
	return service.Authority{CA: &other}.Enroll(ctx, r)
}

// certservice [forgetful|forgetful-and-refused|at ADDRESS] starts a CertService and sets REQUEST_URL, and URL to its
// beginning. The identity of its clients is in mtls.
func startService(s *scene, _ bool, args []string) {
	// Where it was down, no one else must answer.
	options := service.Options{Address: fixture.FreeAddress(s.t)}
	options.Wrap = func(of *service.Service, next http.Handler) http.Handler {
		of.CA.Change = s.change
		return http.HandlerFunc(func(w writer, r *http.Request) { s.answer(next, w, r) })
	}
	if len(args) == 2 {
		options.Address = args[1]
	} else if len(args) > 0 {
		refuses := args[0] == "forgetful-and-refused"
		options.Authority = forgetful{service.Authority{CA: mustCA("Forgetful")}, s, refuses}
	}
	var err error
	s.service, err = service.Start(s.ts.MkAbs("mtls"), options)
	s.ts.Check(err)
	s.ts.Defer(s.service.Stop)
	s.serveAt(s.service.URL)
}

func (s *scene) serveAt(url string) {
	s.ts.Setenv("REQUEST_URL", url)
	s.ts.Setenv("URL", strings.TrimSuffix(url, "/v1/certificate/"))
}

func (s *scene) answer(next http.Handler, w http.ResponseWriter, r *http.Request) {
	s.mutex.Lock()
	s.asked = append(s.asked, r.URL.Path)
	s.shown = pki.Serial(r.TLS.PeerCertificates[0])
	does := s.does
	s.mutex.Unlock()
	s.changing.RLock()
	defer s.changing.RUnlock()
	if does != nil {
		does(s, next, w, r)
		return
	}
	next.ServeHTTP(w, r)
}

// behave [BEHAVIOUR] has the service behave so from now on; without one it does what it should.
func behave(s *scene, _ bool, args []string) {
	name := strings.Join(args, "")
	does, known := behaviours[name]
	s.equal(true, known, "there is a behaviour "+name)
	s.behave(does)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.corrected = name == "corrected"
}

// ca has another CA sign from now on. down stops the service.
func another(s *scene, _ bool, _ []string) {
	second := mustCA("Second")
	second.Change = s.change
	s.changing.Lock()
	defer s.changing.Unlock()
	*s.service.CA = *second
}

func down(s *scene, _ bool, _ []string) { s.service.Stop() }

// arrives waits for an update that the service does not simply answer.
func arrives(s *scene, _ bool, _ []string) { <-s.arrived }

// asked N [UPDATES] wants so many requests so far, and so many of them updates.
func asked(s *scene, _ bool, args []string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	updates := 0
	for _, path := range s.asked {
		if strings.Contains(path, "update") || strings.Contains(path, "elsewhere") {
			updates++
		}
	}
	s.equal(s.number(args[0]), len(s.asked), "requests")
	if len(args) > 1 {
		s.equal(s.number(args[1]), updates, "updates")
	}
}

// shown SERIAL wants the last request to have come with that client certificate; ! shown, with another one.
func shown(s *scene, neg bool, args []string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.equal(!neg, args[0] == s.shown, "shown "+s.shown)
}

// identity [PASSWORD] puts a new identity of the client, and its truststore, in the place of the old, each at one blow,
// and sets IDENTITY and IDENTITY_NOT_AFTER. Without a password the truststore stays. identity broken writes no store.
func identity(s *scene, _ bool, args []string) {
	password, dir := strings.Join(args, ""), s.ts.MkAbs("mtls")
	if password == "broken" {
		s.replace(filepath.Join(dir, "client.p12"), []byte("broken"))
		return
	}
	key, chain, err := s.service.Transport.Identity("certfetcher")
	s.ts.Check(err)
	s.setIdentity(chain[0])
	stores := map[string][]keystore.Entry{"client.p12": {{Alias: "client", Key: key, Chain: chain}}}
	if password == "" {
		password = fixture.Password
	} else {
		stores["truststore.p12"] = anchor(s.service.Transport)
	}
	for name, entries := range stores {
		store := fixture.Must(keystore.EncodePKCS12(entries, password, keystore.ProfileModern))
		s.replace(filepath.Join(dir, name), store)
	}
}

// anchor is what a truststore has of a CA.
func anchor(ca *fixture.CA) []keystore.Entry {
	return []keystore.Entry{{Alias: "root", Chain: []*x509.Certificate{ca.Root}, Trusted: true}}
}

func (s *scene) setIdentity(leaf *x509.Certificate) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.knows = pki.Serial(leaf)
	s.ts.Setenv("IDENTITY", s.knows)
	s.ts.Setenv("IDENTITY_NOT_AFTER", fmt.Sprint(leaf.NotAfter.Unix()))
}

func (s *scene) replace(path string, content []byte) {
	s.ts.Check(os.WriteFile(path+".new", content, 0o600))
	s.ts.Check(os.Rename(path+".new", path))
}

// merge FILE makes a JVM's truststore with a root of its own, and merge FILE CA... wants it to have the roots of just
// those CAs.
func merge(s *scene, _ bool, args []string) {
	path := s.ts.MkAbs(args[0])
	if len(args) == 1 {
		own := fixture.Must(keystore.EncodeJKS(anchor(mustCA("Own")), fixture.Password, time.Now()))
		s.ts.Check(os.WriteFile(path, own, 0o644))
		return
	}
	content, err := os.ReadFile(path)
	s.ts.Check(err)
	entries, format, err := keystore.Decode(content, fixture.Password)
	s.ts.Check(err)
	s.equal(keystore.JKS, format, "format")
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Chain[0].Subject.CommonName)
	}
	for _, name := range args[1:] {
		s.equal(1, strings.Count(strings.Join(names, "\n")+"\n", name+" Root CA\n"), name)
	}
	s.equal(len(args)-1, len(names), "roots")
}

// serve shows the certificate of the volume by TLS and sets SERVED; serve http answers by HTTP at FREE. ! serve ends
// it.
func serve(s *scene, neg bool, args []string) {
	if neg {
		s.server.Close()
		return
	}
	if len(args) > 0 {
		listener, err := net.Listen("tcp", s.ts.Getenv("FREE"))
		s.ts.Check(err)
		s.server = &http.Server{Handler: http.HandlerFunc(func(_ writer, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			s.posts <- string(body)
		})}
		go func() { _ = s.server.Serve(listener) }()
		s.ts.Defer(func() { s.server.Close() })
		return
	}
	pair, err := tls.LoadX509KeyPair(s.volume+"/keystore.pem", s.volume+"/key.pem")
	s.ts.Check(err)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	s.ts.Defer(server.Close)
	s.ts.Setenv("SERVED", server.Listener.Addr().String())
}

// posted REGEXP takes the next request that came to serve http, or waits for it.
func posted(s *scene, _ bool, args []string) {
	select {
	case body := <-s.posts:
		s.matches(args[0], body, false)
	case <-time.After(chaos.Deadline):
		s.ts.Fatalf("nothing was posted")
	}
}

// java NAME [ARGUMENT...] runs a server of test/java until the script ends, and sets SERVED. What it prints is in the
// file java.log.
func java(s *scene, _ bool, args []string) {
	server := fixture.Java(s.t, "", "../java/"+args[0]+".java", args[1:]...)
	log := s.ts.MkAbs("java.log")
	server.Stdout = fixture.Must(os.Create(log))
	stdin := fixture.Must(server.StdinPipe())
	s.ts.Check(server.Start())
	s.ts.Defer(func() { stdin.Close(); _ = server.Wait() })
	s.eventually("the Java server serves", func() bool {
		_, port, _ := strings.Cut(string(fixture.Must(os.ReadFile(log))), "serving ")
		port, _, serves := strings.Cut(port, "\n")
		s.ts.Setenv("SERVED", "127.0.0.1:"+port)
		return serves
	})
}

const ejbcaSecret = "the-secret-of-ejbca"

// ejbca CONFIG [CHANGES] runs certservice for an EJBCA. Both are JSON: members of ejbca.Config, and of the entry of
// cmpServers.json, where null removes one.
func startEJBCA(s *scene, _ bool, args []string) {
	config := ejbca.Config{Secret: ejbcaSecret}
	s.ts.Check(json.Unmarshal([]byte(args[0]), &config))
	if config.Passwords != nil {
		config.Secret = ""
	}
	var err error
	s.ejbca, err = ejbca.New(config)
	s.ts.Check(err)
	server := httptest.NewServer(s.ejbca)
	s.ts.Defer(server.Close)
	root := s.ts.MkAbs("ejbca-root.pem")
	s.ts.Check(os.WriteFile(root, fixture.CertificatesPEM(s.ejbca.Root()), 0o600))
	entry := map[string]any{
		"url":            server.URL + "/ejbca/publicweb/cmp/cmpRA",
		"issuerDN":       cmp.DirectoryName(s.ejbca.Issuing().RawSubject).String(),
		"authentication": map[string]string{"iak": ejbcaSecret, "rv": "RA"}, "trustAnchors": root,
	}
	if len(args) > 1 {
		s.ts.Check(json.Unmarshal([]byte(args[1]), &entry))
	}
	maps.DeleteFunc(entry, func(_ string, value any) bool { return value == nil })
	s.stack, err = fixture.StartCertService(chaos.Bin, s.ts.MkAbs("."), entry)
	s.ts.Check(err)
	s.ts.Defer(func() {
		s.stack.Stop()
		s.ts.Logf("certservice logged:\n%s", s.stack.CertService.Logged())
		if strings.Contains(s.stack.CertService.Logged(), ejbcaSecret) {
			s.ts.Fatalf("certservice logs the secret")
		}
	})
	s.serveAt(s.stack.URL)
	for _, store := range []string{"KEYSTORE", "TRUSTSTORE"} {
		path := s.ts.Getenv(store + "_PATH")
		s.ts.Setenv(store+"_PATH", strings.Replace(path, "/mtls/", "/client/", 1))
	}
}

// requests KIND N wants EJBCA to have had so many requests, and issued N, to have issued so many certificates.
func requests(s *scene, _ bool, args []string) {
	kinds := map[string]cmp.BodyType{"ir": cmp.BodyIR, "cr": cmp.BodyCR, "kur": cmp.BodyKUR}
	s.equal(s.number(args[1]), len(s.ejbca.Requests(kinds[args[0]])), args[0])
}

func issued(s *scene, _ bool, args []string) {
	s.equal(s.number(args[0]), len(s.ejbca.Issued()), "certificates")
}

// signer SERIAL wants the last update to be signed with that certificate.
func signer(s *scene, _ bool, args []string) {
	all := s.ejbca.Requests(cmp.BodyKUR)
	cert, err := x509.ParseCertificate(all[len(all)-1].ExtraCerts[0])
	s.ts.Check(err)
	s.equal(args[0], pki.Serial(cert), "signer")
}

// fail N has EJBCA fail the next transactions; offline takes its key away.
func fail(s *scene, _ bool, args []string) { s.ejbca.FailTransactions(s.number(args[0])) }
func offline(s *scene, _ bool, _ []string) { s.ejbca.TakeOffline() }
