package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestClient_request_is_the_golden_one(t *testing.T) {
	for _, op := range []string{"enroll", "update"} {
		for _, slash := range []string{"", "/"} {
			t.Run(op+" of a URL ending in "+fmt.Sprintf("%q", "certificate"+slash), func(t *testing.T) {
				want := goldenRequest(t, op+".request.json")
				got := make(chan *http.Request, 1)
				m := newMutual(t, func(w http.ResponseWriter, r *http.Request) {
					got <- r
					answering(200, "answer-200.json")(w, r)
				}, nil)
				m.cfg.URL = m.URL + "/v1/certificate" + slash
				c := m.client(t)
				call := c.Enroll
				if op == "update" {
					call = c.Update
				}
				answer, err := call(t.Context(), goldenSecrets())
				require.NoError(t, err)
				assert.Len(t, answer.CertificateChain, 2)
				assert.Len(t, answer.TrustedCertificates, 2)

				r := <-got
				assert.Equal(t, want.Method, r.Method)
				assert.Equal(t, want.Path, r.RequestURI)
				for name, value := range want.Headers {
					assert.Equal(t, value, r.Header.Get(name), name)
				}
				assert.Equal(t, "certfetcher", r.Header.Get("User-Agent"))
				if op == "enroll" {
					assert.Empty(t, r.Header.Get("OLD_PK"))
				}
			})
		}
	}
}

func TestClient_header_names_travel_as_the_API_spells_them(t *testing.T) {
	ca := newCA("Test")
	l := fixture.Must(tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{identity(t, ca, "server", nil)}}))
	defer l.Close()
	head := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var lines strings.Builder
		for r := bufio.NewScanner(conn); r.Scan() && r.Text() != ""; {
			lines.WriteString(r.Text() + "\n")
		}
		head <- lines.String()
		fmt.Fprint(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	}()
	c, err := New(Config{URL: "https://" + l.Addr().String() + "/v1/certificate/", CAName: "RA",
		TLS: &tls.Config{RootCAs: pool(ca.Root)}})
	require.NoError(t, err)
	_, err = c.Update(t.Context(), goldenSecrets())
	require.Error(t, err)
	got := <-head
	for _, name := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
		assert.Contains(t, got, "\n"+name+": LS0tLS1CRUdJTi")
	}
}

func TestNew_refuses(t *testing.T) {
	want := golden.Load(t, "configurations.txt")
	const url = "https://h/v1/certificate/"
	for is, cfg := range map[string]Config{
		"a plain URL":                    {URL: "http://certservice:8080/v1/certificate/", CAName: "RA"},
		"a URL without host":             {URL: "https:///v1/certificate/", CAName: "RA"},
		"what is not a URL":              {URL: "https://h:port\x7f/", CAName: "RA"},
		"a password in the URL":          {URL: "https://me:geheim@h/v1/certificate/", CAName: "RA"},
		"a query":                        {URL: url + "?ca=", CAName: "RA"},
		"a plain update URL":             {URL: url, UpdateURL: "http://h/", CAName: "RA"},
		"no CA name":                     {URL: url},
		"a CA name that leaves the path": {URL: url, CAName: ".."},
		"a CA name with a slash":         {URL: url, CAName: "a/b"},
		"no interval to wait":            {URL: url, CAName: "RA", Retry: &Retry{MaxInterval: time.Second}},
	} {
		cfg.TLS = &tls.Config{}
		_, err := New(cfg)
		require.Error(t, err, is)
		want.Equal(t, is, err.Error())
	}
	_, err := New(Config{URL: url, CAName: "RA"})
	assert.EqualError(t, err, "the client has no TLS configuration, want one with a client certificate and roots")
}

func TestNew_derives_the_URLs(t *testing.T) {
	for _, row := range []struct{ is, url, update, wantEnroll, wantUpdate string }{
		{"the default", "https://oom-cert-service:8443/v1/certificate/", "",
			"https://oom-cert-service:8443/v1/certificate/RA",
			"https://oom-cert-service:8443/v1/certificate-update/RA"},
		{"no slash at the end", "https://h/v1/certificate", "", "https://h/v1/certificate/RA",
			"https://h/v1/certificate-update/RA"},
		{"a path in front", "https://h/pki/v1/certificate/", "", "https://h/pki/v1/certificate/RA",
			"https://h/pki/v1/certificate-update/RA"},
		{"an update URL of its own", "https://h/enrol/", "https://other/renew",
			"https://h/enrol/RA", "https://other/renew/RA"},
	} {
		t.Run(row.is, func(t *testing.T) {
			c := fixture.Must(New(Config{URL: row.url, UpdateURL: row.update, CAName: "RA", TLS: &tls.Config{}}))
			assert.Equal(t, row.wantEnroll, c.enrollURL.String())
			assert.Equal(t, row.wantUpdate, c.updateURL.String())
		})
	}
}

func TestClient_calls_that_cannot_be_made(t *testing.T) {
	c := fixture.Must(New(Config{URL: "https://h/enrol/", CAName: "RA", TLS: &tls.Config{}}))
	r := goldenSecrets()
	_, err := c.Update(t.Context(), r)
	assert.EqualError(t, err,
		`deriving the update URL: the path of the request URL "https://h/enrol/RA" does not end `+
			`in /certificate/: set UPDATE_URL`)
	_, err = c.Update(t.Context(), Request{CSR: r.CSR, Key: r.Key})
	assert.EqualError(t, err, "an update needs a CSR and its key, and the old certificate and its key")
	_, err = c.Enroll(t.Context(), Request{CSR: r.CSR})
	assert.EqualError(t, err, "an enrolment needs a CSR and its key")

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := fmt.Errorf("terminated")
	cancel(stop)
	_, err = c.Enroll(ctx, r)
	assert.Equal(t, stop, err)
}
