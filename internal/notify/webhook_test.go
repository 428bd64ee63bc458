package notify

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newWebhook(t *testing.T, url string) *Webhook {
	t.Helper()
	w, err := NewWebhook(WebhookConfig{URL: url, Timeout: patience, UserAgent: "certfetcher/test"})
	require.NoError(t, err)
	return w
}

func TestWebhook_posts_the_event(t *testing.T) {
	for _, status := range []int{200, 202, 204, 299} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			assert.Equal(t, "POST /reload?token=abc", r.Method+" "+r.RequestURI)
			assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
			assert.Equal(t, "certfetcher/test", r.Header.Get("User-Agent"))
			assert.Equal(t, `{"reason":"renewed","serial":"0A1B","notBefore":"2026-01-02T03:04:05Z","notAfter":"2026-04-02T01:04:05Z",`+
				`"dir":"/certs","files":["/certs/keystore.p12","/certs/keystore.pass"]}`, string(body))
			w.WriteHeader(status)
		}))
		defer server.Close()
		assert.NoError(t, newWebhook(t, server.URL+"/reload?token=abc").Notify(t.Context(), testEvent))
	}
}

func TestWebhook_sends_an_empty_list_rather_than_null(t *testing.T) {
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { body, _ = io.ReadAll(r.Body) }))
	defer server.Close()
	require.NoError(t, newWebhook(t, server.URL).Notify(t.Context(), Event{}))
	assert.Contains(t, string(body), `"files":[]`)
}

func TestWebhook_reports_any_other_status_without_the_query(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "keystore is broken"+strings.Repeat(".", 1000), http.StatusInternalServerError)
	}))
	defer server.Close()
	err := newWebhook(t, strings.Replace(server.URL, "://", "://me:s3cret@", 1)+"/reload?token=s3cret").Notify(t.Context(), testEvent)
	require.EqualError(t, err, "posting to "+server.URL+`/reload: has status 500 Internal Server Error and answer "keystore is broken`+
		strings.Repeat(".", 200-len("keystore is broken"))+`", want 2xx`)
}

func TestWebhook_follows_no_redirect(t *testing.T) {
	reached := false
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer target.Close()
	server := httptest.NewServer(http.RedirectHandler(target.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	require.EqualError(t, newWebhook(t, server.URL).Notify(t.Context(), testEvent),
		"posting to "+server.URL+": has status 307 Temporary Redirect, want 2xx; redirects are not followed")
	assert.False(t, reached)
}

func TestWebhook_uses_no_proxy(t *testing.T) {
	// net/http never uses a proxy for loopback addresses, so only the transport tells.
	transport := newWebhook(t, "http://localhost").client(nil).Transport.(*http.Transport)
	assert.Nil(t, transport.Proxy)
}

func TestWebhook_times_out(t *testing.T) {
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	w := newWebhook(t, server.URL+"/?token=s3cret")
	var err error
	// Longer as long as the time was over before the request was there.
	for w.config.Timeout = 50 * time.Millisecond; len(arrived) == 0; w.config.Timeout *= 2 {
		err = w.Notify(t.Context(), testEvent)
	}
	require.EqualError(t, err, "posting to "+server.URL+"/: context deadline exceeded")
}

func TestWebhook_trusts_what_was_published(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about the client that distrusts it
	server.StartTLS()
	defer server.Close()
	event := testEvent
	err := newWebhook(t, server.URL).Notify(t.Context(), event)
	require.ErrorAs(t, err, new(x509.UnknownAuthorityError))
	event.Trusted = []*x509.Certificate{server.Certificate()}
	require.NoError(t, newWebhook(t, server.URL).Notify(t.Context(), event))
}

func TestNewWebhook_checks_the_URL_and_does_not_show_it(t *testing.T) {
	for _, row := range []struct{ name, url, want string }{
		{"no URL", "http://s3cret\x7f", "not a URL"},
		{"another scheme", "ftp://localhost/s3cret", `has scheme "ftp", want http or https`},
		{"no scheme", "localhost", "has no scheme, want http:// or https:// before the host"},
		{"no scheme, but a port", "localhost:8080/s3cret", "has no scheme, want http:// or https:// before the host"},
		{"no host", "http:///s3cret", "has no host"},
		{"a remote address", "http://192.0.2.1/s3cret", "has address 192.0.2.1, want a loopback address such as 127.0.0.1 as long as remote ones are not allowed"},
		{"a remote address in version 6", "http://[2001:db8::1]:80/", "has address 2001:db8::1, want a loopback address such as 127.0.0.1 as long as remote ones are not allowed"},
		{"a remote address mapped into version 6", "http://[::ffff:192.0.2.1]/", "has address ::ffff:192.0.2.1, want a loopback address such as 127.0.0.1 as long as remote ones are not allowed"},
		{"the unspecified address", "http://0.0.0.0/", "has address 0.0.0.0, want a loopback address such as 127.0.0.1 as long as remote ones are not allowed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := NewWebhook(WebhookConfig{URL: row.url, Timeout: patience})
			require.EqualError(t, err, row.want)
		})
	}
	for _, url := range []string{"http://127.0.0.1:8080", "https://127.9.9.9/", "http://[::1]:1/", "http://[::ffff:127.0.0.1]/", "http://localhost"} {
		_, err := NewWebhook(WebhookConfig{URL: url, Timeout: patience})
		assert.NoError(t, err, url)
	}
	_, err := NewWebhook(WebhookConfig{URL: "http://192.0.2.1/", Timeout: patience, AllowRemote: true})
	assert.NoError(t, err)
}

func TestWebhook_checks_the_address_that_a_name_leads_to(t *testing.T) {
	resolveTo(t, net.IPv4(192, 0, 2, 1))
	w := newWebhook(t, "http://app.example:8080/")
	require.EqualError(t, w.Notify(t.Context(), testEvent),
		"posting to http://app.example:8080/: dial tcp 192.0.2.1:8080: has address 192.0.2.1, want a loopback address such as 127.0.0.1 as long as remote ones are not allowed")
	w.config.AllowRemote = true
	w.config.Timeout = 50 * time.Millisecond
	err := w.Notify(t.Context(), testEvent)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "loopback")
}

func TestWebhook_reaches_a_name_that_leads_to_loopback(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	resolveTo(t, net.IPv4(127, 0, 0, 1))
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, newWebhook(t, "http://app.example:"+port).Notify(t.Context(), testEvent))
}

// resolveTo makes every name resolve to address, by a DNS server of the test's own.
func resolveTo(t *testing.T, address net.IP) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		query := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(dnsAnswer(query[:n], address), from)
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = server.Close()
	})
}

// dnsAnswer answers a question for type A with the address and any other with nothing (RFC 1035,
// section 4.1).
func dnsAnswer(query []byte, address net.IP) []byte {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	question := query[12 : end+5]
	isA := binary.BigEndian.Uint16(question[len(question)-4:]) == 1
	answer := append([]byte{}, query[:2]...)
	answer = append(answer, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0) // response, recursion; one question
	answer = append(answer, question...)
	if isA {
		answer[7] = 1
		answer = append(answer, 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4) // the question's name, A, IN, a minute
		answer = append(answer, address.To4()...)
	}
	return answer
}
