package notify

import (
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNotifiers_leave_no_descriptor_or_goroutine_behind(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	cert, event := issue(t, newCA(t))
	app := startTLS(t, cert, nil)
	process, out := startApplication(t, testBinary(t), "application")
	require.Equal(t, "application is ready", out.next(t))
	notifiers := []Notifier{
		NewExec(ExecConfig{Command: []string{testBinary(t), "exit", "0"}, Timeout: patience, Log: newLines().logger()}),
		newSignal(t, "", writePID(t, process.Process.Pid, "\n")),
		newWebhook(t, server.URL),
		newVerify(t, app.address, newLines()),
	}
	round := func() {
		for _, notifier := range notifiers {
			require.NoError(t, notifier.Notify(t.Context(), event), notifier.Kind())
		}
		assert.NoError(t, (<-app.handshakes).err)
		out.next(t)
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
	assert.Eventually(t, func() bool { return descriptors() <= fds && runtime.NumGoroutine() <= goroutines+1 }, patience, time.Millisecond,
		"from %d descriptors and %d goroutines", fds, goroutines)
}
