package certservice

import (
	"bufio"
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/port"
)

// silentServer accepts connections and never answers.
func silentServer(t *testing.T) (url string) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	return server.URL
}

func TestCMPAuthority_noAnswer_namesTheLimitAndWhatToRaise(t *testing.T) {
	for _, row := range []struct {
		name             string
		timeout, request time.Duration
		want             string
	}{
		{"the server's own", 20 * time.Millisecond, time.Hour, "no answer from the CMP server within 20ms; raise the timeout of this CA in cmpServers.json"},
		{"the request's", time.Hour, 20 * time.Millisecond, "no answer from the CMP server within the time of one request; raise REQUEST_TIMEOUT"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newCMPServer(t)
			authority, _ := s.authority(func(server *Server) { server.URL, server.Timeout = silentServer(t), row.timeout })
			service := newService(t, authority, func(cfg *HandlerConfig) { cfg.Timeout = row.request })

			r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

			assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
			assert.JSONEq(t, `{"errorMessage":"Exception occurred during call to cmp client: `+row.want+`"}`, r.text)
			assert.Contains(t, service.audit(t)["reason"], row.want+": sending CMP request: ")
		})
	}
}

// stalling answers nothing until the request is given up.
type stalling struct{}

func (stalling) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A timeout beyond the client's own default for one message must lift that, too.
func TestCMPAuthority_timeout_isAlsoThatOfOneMessage(t *testing.T) {
	for timeout, want := range map[time.Duration]string{0: "30s", 5 * time.Second: "5s", 45 * time.Second: "45s"} {
		synctest.Test(t, func(t *testing.T) {
			server := Server{CAName: "RA", URL: "http://ca.example", IssuerDN: "CN=peer", IAK: testIAK, RV: testRV, Protection: ProtectionPBMSHA256, Timeout: timeout}
			a, err := newCMPAuthority(server, &http.Client{Transport: stalling{}}, newLearnedStore(), nil, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			start := time.Now()

			_, err = a.Enroll(t.Context(), enrollRequest(t))

			assert.EqualError(t, err, "no answer from the CMP server within "+want+"; raise the timeout of this CA in cmpServers.json")
			assert.Equal(t, want, time.Since(start).String())
		})
	}
}

func TestCMPAuthority_clientGone_isNotBlamedOnTheServer(t *testing.T) {
	s := newCMPServer(t)
	a, _ := s.authority(func(server *Server) { server.URL = silentServer(t) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, err := a.Enroll(ctx, enrollRequest(t))

	assert.EqualError(t, err, "the client went before the CMP server answered")
}

func TestCMPAuthority_unreachable_addressIsForTheLogOnly(t *testing.T) {
	s := newCMPServer(t)
	nobody := "http://" + port.Free(t)
	authority, _ := s.authority(func(server *Server) { server.URL = nobody + "/internal/path" })
	service := newService(t, authority, nil)

	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.JSONEq(t, `{"errorMessage":"Exception occurred during call to cmp client: the CMP server could not be asked: connection refused; the log of the CertService has more"}`, r.text)
	reason := service.audit(t)["reason"]
	assert.Contains(t, reason, "connection refused")
	assert.Contains(t, reason, nobody)
}

func TestCMPAuthority_untrustedTLSCertificate_isSaid(t *testing.T) {
	s := newCMPServer(t)
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	authority, _ := s.authority(func(configured *Server) {
		configured.URL, configured.TLS.Trust = server.URL, []*x509.Certificate{newCA(t, "Other").Root}
	})
	service := newService(t, authority, nil)

	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.JSONEq(t, `{"errorMessage":"Exception occurred during call to cmp client: the CMP server could not be asked: its TLS certificate is not trusted: check tlsTrust of this CA in cmpServers.json; the log of the CertService has more"}`, r.text)
	assert.Contains(t, service.audit(t)["reason"], "certificate signed by unknown authority")
}

func TestCMPAuthority_answerThatIsNoHTTP_isNotCalledSilence(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		defer connection.Close()
		if _, err := http.ReadRequest(bufio.NewReader(connection)); err == nil {
			_, _ = io.WriteString(connection, "220 mail.example ready\r\n")
		}
	}()
	s := newCMPServer(t)
	a, _ := s.authority(func(server *Server) { server.URL = "http://" + listener.Addr().String() })

	_, err = a.Enroll(t.Context(), enrollRequest(t))

	assert.EqualError(t, err, "the CMP server could not be asked; the log of the CertService has more")
}

// An error page of the CMP server tells what is wrong. Whoever enrols sees the words, the log also where they are from.
func TestCMPAuthority_errorPage_isQuotedAndItsURLIsForTheLogOnly(t *testing.T) {
	page, err := os.ReadFile("../../test/testdata/ejbca/unknown-alias.response.html")
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html;charset=UTF-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write(page)
	}))
	t.Cleanup(server.Close)
	s := newCMPServer(t)
	url := server.URL + "/ejbca/publicweb/cmp/nosuch"
	authority, _ := s.authority(func(configured *Server) { configured.URL = url })
	service := newService(t, authority, nil)

	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Contains(t, r.text, `HTTP status 404`)
	assert.Contains(t, r.text, `CMP alias 'nosuch' does not exist`)
	assert.NotContains(t, r.text, server.URL)
	reason := service.audit(t)["reason"]
	assert.Contains(t, reason, `CMP alias 'nosuch' does not exist`)
	assert.Contains(t, reason, url)
}
