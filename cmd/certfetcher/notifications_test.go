package main

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/notify"
)

func notifying(t *testing.T, n config.Notify) (notify.Config, config.Faults) {
	t.Helper()
	n.Timeout, n.VerifyFor = time.Minute, 100*time.Millisecond
	return notifications(&config.Fetcher{Notify: n, Output: config.Output{Dir: t.TempDir()}}, slog.New(slog.DiscardHandler))
}

func TestNotifications_remoteURL_onlyWhenAllowed(t *testing.T) {
	const remote = "http://192.0.2.1/reload"
	made, faults := notifying(t, config.Notify{URL: remote, AllowRemote: true})
	assert.Empty(t, faults)
	require.Len(t, made.Notifiers, 1)
	assert.Equal(t, notify.KindURL, made.Notifiers[0].Kind())
	made, faults = notifying(t, config.Notify{URL: remote})
	require.Len(t, faults, 1)
	assert.Contains(t, faults[0].Error(), "NOTIFY_URL cannot be used: has address 192.0.2.1, want a loopback address")
	assert.Empty(t, made.Notifiers)
}

func TestNotifications_verification_asksForTheServerName(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	made, faults := notifying(t, config.Notify{Verify: listener.Addr().String(), VerifyServerName: "asked.example.org"})
	require.Empty(t, faults)

	asked := make(chan string, 100)
	server := tls.NewListener(listener, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		asked <- hello.ServerName
		return nil, errors.New("that is all")
	}})
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	for len(asked) == 0 { // a look may be cut off before it is there
		require.Error(t, made.Verify.Notify(t.Context(), notify.Event{Names: []string{"app.example.org"}}))
	}
	assert.Equal(t, "asked.example.org", <-asked)
}
