package notify

import (
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWebhook_postsTheEvent(t *testing.T) {
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		assert.Equal(t, "POST /reload?token=abc", r.Method+" "+r.RequestURI)
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		assert.Equal(t, "certfetcher/test", r.Header.Get("User-Agent"))
		w.WriteHeader(299)
	}))
	defer server.Close()
	w, _ := create[*webhook](t,
		Settings{URL: strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/reload?token=abc"})
	require.NoError(t, w.Notify(t.Context(), testEvent))
	assert.Equal(t,
		`{"reason":"renewed","serial":"0A1B","notBefore":"2026-01-02T03:04:05Z","notAfter":"2026-04-02T01:04:05Z",`+
			`"dir":"/certs","files":["/certs/keystore.p12","/certs/keystore.pass"]}`, string(body))
	require.NoError(t, w.Notify(t.Context(), Event{}))
	assert.Contains(t, string(body), `"files":[]`, "rather than null")
}

func TestWebhook_reportsAnyOtherStatus_withoutSecrets(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
			return
		}
		http.Error(w, "keystore is broken"+strings.Repeat(".", 1000), http.StatusInternalServerError)
	}))
	defer server.Close()
	for path, want := range map[string]string{
		"/reload": `has status 500 Internal Server Error and answer "keystore is broken` +
			strings.Repeat(".", 200-len("keystore is broken")) + `", want 2xx`,
		"/elsewhere": "has status 307 Temporary Redirect, want 2xx; redirects are not followed",
	} {
		w, _ := create[*webhook](t,
			Settings{URL: strings.Replace(server.URL, "://", "://me:s3cret@", 1) + path + "?token=s3cret"})
		require.EqualError(t, w.Notify(t.Context(), testEvent), "posting to "+server.URL+path+": "+want)
	}
}

func TestWebhook_usesNoProxy(t *testing.T) {
	// net/http never uses a proxy for loopback addresses, so only the transport tells.
	w, _ := create[*webhook](t, Settings{URL: "http://localhost"})
	assert.Nil(t, w.client(nil).Transport.(*http.Transport).Proxy)
}

func TestWebhook_timesOut(t *testing.T) {
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	var err error
	// Longer as long as the time was over before the request was there.
	for timeout := 50 * time.Millisecond; len(arrived) == 0; timeout *= 2 {
		w, _ := create[*webhook](t, Settings{URL: server.URL + "/?token=s3cret", Timeout: timeout})
		err = w.Notify(t.Context(), testEvent)
	}
	require.EqualError(t, err, "posting to "+server.URL+"/: context deadline exceeded")
}

func TestWebhook_trustsWhatWasPublished(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about the client that distrusts it
	server.StartTLS()
	defer server.Close()
	w, _ := create[*webhook](t, Settings{URL: server.URL})
	require.ErrorAs(t, w.Notify(t.Context(), testEvent), new(x509.UnknownAuthorityError))
	event := testEvent
	event.Trusted = []*x509.Certificate{server.Certificate()}
	require.NoError(t, w.Notify(t.Context(), event))
}

// A name may lead anywhere, and elsewhere at each time.
func TestWebhook_checksTheAddressThatItDials(t *testing.T) {
	w, _ := create[*webhook](t, Settings{URL: "http://localhost/", Timeout: 50 * time.Millisecond})
	w.url.Host = "192.0.2.1:8080"
	require.EqualError(t, w.Notify(t.Context(), testEvent),
		"posting to http://192.0.2.1:8080/: dial tcp 192.0.2.1:8080: "+
			"has address 192.0.2.1, want a loopback address such as 127.0.0.1 as long as remote ones are not allowed")
	w.allowRemote = true
	err := w.Notify(t.Context(), testEvent)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "loopback")
}

func TestWebhook_absentApplication(t *testing.T) {
	w, _ := create[*webhook](t, Settings{URL: "http://127.0.0.9:1/?token=s3cret"})
	require.ErrorAs(t, w.Notify(t.Context(), testEvent), new(*absentError))
}
