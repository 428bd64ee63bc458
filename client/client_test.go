package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// What a request is on the wire, with header names as the API spells them.
func TestClient_request_is_the_golden_one(t *testing.T) {
	for _, op := range []string{"enroll", "update"} {
		for _, slash := range []string{"", "/"} {
			want := goldenRequest(t, op+".request.json")
			ca, head := newCA("Test"), make(chan []string, 1)
			address := listen(t, func(raw net.Conn) {
				conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{identity(t, ca, "server", nil)}})
				defer conn.Close()
				var lines []string
				for r := bufio.NewScanner(conn); r.Scan() && r.Text() != ""; {
					lines = append(lines, r.Text())
				}
				head <- lines
				fmt.Fprint(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
			})
			c := fixture.Must(New(Config{URL: "https://" + address + "/v1/certificate" + slash, CAName: "RA",
				TLS: &tls.Config{RootCAs: pool(ca.Root)}, Timeout: 29500 * time.Millisecond}))
			_, err := map[string]func(context.Context, Request) (Answer, error){
				"enroll": c.Enroll, "update": c.Update}[op](t.Context(), goldenSecrets())
			require.ErrorAs(t, err, new(*StatusError))
			lines := []string{want.Method + " " + want.Path + " HTTP/1.1", "Host: " + address,
				"User-Agent: certfetcher", "Accept: application/json", "Connection: close", "Prefer: wait=30"}
			for name, value := range want.Headers {
				lines = append(lines, name+": "+value)
			}
			assert.ElementsMatch(t, lines, <-head, op+slash)
		}
	}
}

func TestClient_call_whose_context_has_ended(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("terminated")
	cancel(stop)
	_, err := clientOf("h", 0).Enroll(ctx, goldenSecrets())
	assert.Equal(t, stop, err)
}

func TestAlerts_unwrapWhatThePeerSent(t *testing.T) {
	for code := range alerts {
		found, ok := alertOf(fmt.Errorf("wrapped: %w", &net.OpError{Op: "remote error", Err: code}))
		assert.True(t, ok)
		assert.Equal(t, code, found)
	}
	assert.False(t, clientOf("h:1", 0).explainAlert(80).permanent, "internal_error may pass")
}
