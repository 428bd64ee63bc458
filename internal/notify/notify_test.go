package notify

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/program"
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

// logger logs to l, without times.
func (l lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestNew_refusesWhatCannotBeUsed(t *testing.T) {
	const loopback = ", want a loopback address such as 127.0.0.1 as long as remote ones are not allowed"
	const address = "want host:port, or one of imap://, ldap://, postgres://, smtp:// before it"
	const signal = ", want a name such as HUP or SIGHUP, or a number"
	for sentence, row := range map[string]struct {
		settings          Settings
		variable, problem string
	}{
		"a signal without a process":       {Settings{Signal: "HUP"}, "NOTIFY_SIGNAL", `has "HUP", but neither NOTIFY_PROCESS nor NOTIFY_PID_FILE is set`},
		"a process without a signal":       {Settings{Process: "app"}, "NOTIFY_PROCESS", `has "app", but NOTIFY_SIGNAL is not set`},
		"a PID file without a signal":      {Settings{PIDFile: "/p"}, "NOTIFY_PID_FILE", `has "/p", but NOTIFY_SIGNAL is not set`},
		"a process with its directory":     {Settings{Signal: "HUP", Process: "/bin/app"}, "NOTIFY_PROCESS", `has "/bin/app", want a program's name without directory`},
		"an unknown signal":                {Settings{Signal: "RELOAD", Process: "app"}, "NOTIFY_SIGNAL", `cannot be used: has unknown signal "RELOAD"` + signal},
		"a signal without a name":          {Settings{Signal: "SIG", Process: "app"}, "NOTIFY_SIGNAL", `cannot be used: has unknown signal "SIG"` + signal},
		"a signal after a space":           {Settings{Signal: " HUP", Process: "app"}, "NOTIFY_SIGNAL", `cannot be used: has unknown signal " HUP"` + signal},
		"signal 0, which only asks":        {Settings{Signal: "0", Process: "app"}, "NOTIFY_SIGNAL", "cannot be used: has signal number 0, want 1 to 64"},
		"a negative signal":                {Settings{Signal: "-1", Process: "app"}, "NOTIFY_SIGNAL", "cannot be used: has signal number -1, want 1 to 64"},
		"signal 65":                        {Settings{Signal: "65", Process: "app"}, "NOTIFY_SIGNAL", "cannot be used: has signal number 65, want 1 to 64"},
		"blanks for a command":             {Settings{Exec: " \t\n"}, "NOTIFY_EXEC", "cannot be used: there is no program to run"},
		"a command of an empty name":       {Settings{Exec: `"" -s`}, "NOTIFY_EXEC", "cannot be used: there is no program to run"},
		"an open single quote":             {Settings{Exec: `echo 'a b`}, "NOTIFY_EXEC", "cannot be used: the quote ' at byte 6 is not closed"},
		"an open double quote":             {Settings{Exec: `echo "a' b`}, "NOTIFY_EXEC", `cannot be used: the quote " at byte 6 is not closed`},
		"a quote that only looks closed":   {Settings{Exec: `echo "a\"`}, "NOTIFY_EXEC", `cannot be used: the quote " at byte 6 is not closed`},
		"a backslash at the end":           {Settings{Exec: `echo \`}, "NOTIFY_EXEC", "cannot be used: the backslash at byte 6 has nothing after it"},
		"a command with NUL":               {Settings{Exec: "echo a\x00b"}, "NOTIFY_EXEC", "cannot be used: byte 7 is NUL, which no argument can hold"},
		"text for a URL":                   {Settings{URL: "http://s3cret\x7f"}, "NOTIFY_URL", "cannot be used: not a URL"},
		"a URL of another scheme":          {Settings{URL: "ftp://localhost/s3cret"}, "NOTIFY_URL", `cannot be used: has scheme "ftp", want http or https`},
		"a URL without a scheme":           {Settings{URL: "localhost:80/s3cret"}, "NOTIFY_URL", "cannot be used: has no scheme, want http:// or https:// before the host"},
		"a URL without a host":             {Settings{URL: "http:///s3cret"}, "NOTIFY_URL", "cannot be used: has no host"},
		"a remote URL":                     {Settings{URL: "http://192.0.2.1/s3cret"}, "NOTIFY_URL", "cannot be used: has address 192.0.2.1" + loopback},
		"a remote URL of IPv6":             {Settings{URL: "http://[2001:db8::1]:80/"}, "NOTIFY_URL", "cannot be used: has address 2001:db8::1" + loopback},
		"a remote URL mapped to IPv6":      {Settings{URL: "http://[::ffff:192.0.2.1]/"}, "NOTIFY_URL", "cannot be used: has address ::ffff:192.0.2.1" + loopback},
		"the unspecified address":          {Settings{URL: "http://0.0.0.0/"}, "NOTIFY_URL", "cannot be used: has address 0.0.0.0" + loopback},
		"a host alone":                     {Settings{Verify: "localhost"}, "NOTIFY_VERIFY", `cannot be used: has address "localhost", ` + address},
		"a port alone":                     {Settings{Verify: ":443"}, "NOTIFY_VERIFY", `cannot be used: has address ":443", ` + address},
		"an empty port":                    {Settings{Verify: "localhost:"}, "NOTIFY_VERIFY", `cannot be used: has address "localhost:", ` + address},
		"IPv6 without brackets":            {Settings{Verify: "::1"}, "NOTIFY_VERIFY", `cannot be used: has address "::1", ` + address},
		"another protocol":                 {Settings{Verify: "pop3://h"}, "NOTIFY_VERIFY", `cannot be used: has the protocol "pop3", which is not known: ` + address + "; without one TLS has to begin at once"},
		"a password in an address":         {Settings{Verify: "postgres://u:s3cret@h/"}, "NOTIFY_VERIFY", "cannot be used: has no usable address, " + address},
		"a path after an address":          {Settings{Verify: "postgres://h:1/d"}, "NOTIFY_VERIFY", `cannot be used: has address "postgres://h:1/d", ` + address + ", and nothing behind it"},
		"a protocol that wants a port":     {Settings{Verify: "tls://h"}, "NOTIFY_VERIFY", `cannot be used: has address "tls://h" without a port, ` + address},
		"a protocol without a host behind": {Settings{Verify: "smtp://"}, "NOTIFY_VERIFY", `cannot be used: has address "smtp://", ` + address + ", and nothing behind it"},
	} {
		t.Run(sentence, func(t *testing.T) {
			made, faults := New(row.settings, Options{})
			assert.Equal(t, []program.Fault{{Variable: row.variable, Problem: row.problem}}, faults)
			assert.Empty(t, made.Kinds())
			assert.NotContains(t, fmt.Sprint(faults), "s3cret")
		})
	}
}

func TestNew_makesWhatIsAskedFor_inOrder(t *testing.T) {
	settings := Settings{Verify: "h:1", URL: "http://192.0.2.1/", AllowRemote: true, Signal: "sighup", PIDFile: "/p", Exec: "reload"}
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
	for _, url := range []string{"https://127.9.9.9/", "http://[::1]:1/", "http://[::ffff:127.0.0.1]/", "http://localhost"} {
		_, faults = New(Settings{URL: url}, Options{})
		assert.Empty(t, faults, url)
	}
}

func TestNewEvent_describesTheLeaf(t *testing.T) {
	notBefore, notAfter := time.Unix(1, 0), time.Unix(2, 0)
	trusted := []*x509.Certificate{{}}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(0xABC), NotBefore: notBefore, NotAfter: notAfter,
		DNSNames: []string{"a.example", "b.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1), net.IPv6loopback},
	}
	event := NewEvent("renewed", "/certs", []string{"/certs/key.pem"}, leaf, trusted)
	assert.Equal(t, Event{
		Reason: "renewed", Serial: "0ABC", NotBefore: notBefore, NotAfter: notAfter, Dir: "/certs", Paths: []string{"/certs/key.pem"},
		Names: []string{"a.example", "b.example", "10.0.0.1", "::1"}, Trusted: trusted,
	}, event)
	assert.Equal(t, []string{"a.example", "b.example"}, leaf.DNSNames, "the certificate must be left as it is")
}

func TestNotifiers_leaveNoDescriptorOrGoroutineBehind(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	cert, event := issue(t, newCA(t))
	app := startTLS(t, cert, nil)
	config, faults := New(Settings{Exec: "true", URL: server.URL, Verify: app.address, Timeout: patience, VerifyFor: patience},
		Options{Environ: os.Environ(), Log: slog.New(slog.DiscardHandler)})
	require.Empty(t, faults)
	round := func() {
		for _, notifier := range config.notifiers(event) {
			require.NoError(t, notifier.Notify(t.Context(), event), notifier.Kind())
		}
		assert.NoError(t, (<-app.handshakes).err)
	}
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	round()
	fds, goroutines := descriptors(), runtime.NumGoroutine()
	for range 30 {
		round()
	}
	// The servers' side of the last connections may take a moment to end.
	assert.Eventually(t, func() bool { return descriptors() <= fds && runtime.NumGoroutine() <= goroutines+1 }, patience,
		time.Millisecond, "from %d descriptors and %d goroutines", fds, goroutines)
}
