package notify

import (
	"cmp"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// patience bounds waits for things that happen at once unless something is wrong.
const patience = 20 * time.Second

var testEvent = Event{
	Reason: "renewed", Serial: "0A1B",
	NotBefore: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	NotAfter:  time.Date(2026, 4, 2, 3, 4, 5, 0, time.FixedZone("", 7200)),
	Dir:       "/certs", Paths: []string{"/certs/keystore.p12", "/certs/keystore.pass"},
}

// create makes the one notifier that the settings ask for, and returns what it logs.
func create[N Notifier](t *testing.T, s Settings) (N, lines) {
	t.Helper()
	log := make(lines, 1000)
	s.Timeout, s.VerifyFor = cmp.Or(s.Timeout, patience), cmp.Or(s.VerifyFor, patience)
	config, faults := New(s, Options{UserAgent: "certfetcher/test", Environ: os.Environ(), Log: log.logger()})
	require.Empty(t, faults)
	return config.notifiers(Event{})[0].(N), log
}

// lines hands on what is written to it, line by line.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		l <- strings.TrimSuffix(line, "\n")
	}
	return len(p), nil
}

// next waits for the next line.
func (l lines) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-time.After(patience):
		require.Fail(t, "no further line came")
		return ""
	}
}

// all returns the lines that are there.
func (l lines) all() (list []string) {
	for len(l) > 0 {
		list = append(list, <-l)
	}
	return list
}

// text is all in one.
func (l lines) text() string { return strings.Join(l.all(), " ") }

// logger logs to l, without times.
func (l lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// rows reads a file of lines with " -> " between what is given and what is wanted.
func rows(path string) map[string]string {
	all := map[string]string{}
	for row := range strings.Lines(string(fixture.Must(os.ReadFile(path)))) {
		if given, want, found := strings.Cut(strings.TrimSpace(row), " -> "); found {
			all[given] = want
		}
	}
	return all
}

func TestNew_refusesWhatCannotBeUsed(t *testing.T) {
	value := regexp.MustCompile(`(\w+)=("([^"\\]|\\.)*")`)
	for given, want := range rows("testdata/faults.txt") {
		var s Settings
		fields := map[string]*string{
			"EXEC": &s.Exec, "URL": &s.URL, "VERIFY": &s.Verify,
			"SIGNAL": &s.Signal, "PROCESS": &s.Process, "PID_FILE": &s.PIDFile,
		}
		for _, match := range value.FindAllStringSubmatch(given, -1) {
			*fields[match[1]] = fixture.Must(strconv.Unquote(match[2]))
		}
		made, faults := New(s, Options{})
		if fault, conflict := s.Conflict(); conflict {
			faults = append(faults, fault)
		}
		require.Len(t, faults, 1, given)
		assert.Equal(t, want, faults[0].Error())
		assert.NotContains(t, want, "s3cret")
		assert.Empty(t, made.Kinds())
	}
}

func TestNew_makesWhatIsAskedFor_inOrder(t *testing.T) {
	settings := Settings{Verify: "h:1", URL: "http://192.0.2.1/", AllowRemote: true,
		Signal: "sighup", PIDFile: "/p", Exec: "reload"}
	made, faults := New(settings, Options{})
	require.Empty(t, faults)
	assert.Equal(t, []string{KindExec, KindSignal, KindURL, KindVerify}, made.Kinds())
	for _, kind := range Kinds {
		assert.NotNil(t, made.Checker(kind.Name), kind.Name)
	}
	assert.True(t, made.Notifies())
	made, faults = New(Settings{Verify: "h:1"}, Options{})
	require.Empty(t, faults)
	assert.False(t, made.Notifies(), "to verify is not to notify")
	assert.Nil(t, made.Checker(KindExec))
	assert.True(t, Config{Prepare: made.Verify}.Notifies())
	for _, url := range []string{"https://127.9.9.9/", "http://[::1]:1/",
		"http://[::ffff:127.0.0.1]/", "http://localhost"} {
		_, faults = New(Settings{URL: url}, Options{})
		assert.Empty(t, faults, url)
	}
}

func TestNewEvent_describesTheLeaf(t *testing.T) {
	trusted := []*x509.Certificate{{}}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(0xABC), NotBefore: time.Unix(1, 0), NotAfter: time.Unix(2, 0),
		DNSNames: []string{"a.example", "b.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1), net.IPv6loopback},
	}
	event := NewEvent("renewed", "/certs", []string{"/certs/key.pem"}, leaf, trusted)
	assert.Equal(t, Event{
		Reason: "renewed", Serial: "0ABC", NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Dir: "/certs", Paths: []string{"/certs/key.pem"},
		Names: []string{"a.example", "b.example", "10.0.0.1", "::1"}, Trusted: trusted,
	}, event)
	assert.Equal(t, []string{"a.example", "b.example"}, leaf.DNSNames, "the certificate must be left as it is")
}

func TestNotifiers_leaveNoDescriptorOrGoroutineBehind(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	cert, event := issue(newCA())
	app := startTLS(t, cert, nil)
	config, faults := New(Settings{Exec: "true", URL: server.URL, Verify: app.address,
		Timeout: patience, VerifyFor: patience},
		Options{Environ: os.Environ(), Log: slog.New(slog.DiscardHandler)})
	require.Empty(t, faults)
	round := func() {
		for _, notifier := range config.notifiers(event) {
			require.NoError(t, notifier.Notify(t.Context(), event), notifier.Kind())
		}
		assert.NoError(t, (<-app.handshakes).err)
	}
	descriptors := func() int { return len(fixture.Must(os.ReadDir("/proc/self/fd"))) }
	round()
	fds, goroutines := descriptors(), runtime.NumGoroutine()
	for range 30 {
		round()
	}
	// The servers' side of the last connections may take a moment to end.
	assert.Eventually(t, func() bool { return descriptors() <= fds && runtime.NumGoroutine() <= goroutines+1 },
		patience, time.Millisecond, "from %d descriptors and %d goroutines", fds, goroutines)
}

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
