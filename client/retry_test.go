package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// script is a transport that gives one reply after the other, the last one for ever, and notes when.
type script struct {
	replies []reply
	at      []time.Time
}

type reply struct {
	err        error
	status     int
	retryAfter string
	body       string
	takes      time.Duration
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	next := s.replies[min(len(s.at), len(s.replies)-1)]
	s.at = append(s.at, time.Now())
	select {
	case <-time.After(next.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if next.err != nil {
		return nil, next.err
	}
	h := http.Header{"Content-Type": {"application/json"}}
	if next.retryAfter != "" {
		h.Set("Retry-After", next.retryAfter)
	}
	return &http.Response{StatusCode: next.status, Header: h,
		Body: io.NopCloser(strings.NewReader(next.body)), Request: r}, nil
}

func (s *script) waits() (waits []time.Duration) {
	for i := 1; i < len(s.at); i++ {
		waits = append(waits, s.at[i].Sub(s.at[i-1]))
	}
	return waits
}

var success = reply{status: 200, body: `{"certificateChain":["a"],"trustedCertificates":["b"]}`}

var (
	usual   = &Retry{time.Second, 30 * time.Second, 5 * time.Minute}
	forever = &Retry{time.Second, 30 * time.Second, 0}
)

func scripted(t *testing.T, retry *Retry, replies ...reply) (*Client, *script, *bytes.Buffer) {
	t.Helper()
	var logged bytes.Buffer
	c, err := New(Config{URL: "https://certservice:8443/v1/certificate/", CAName: "RA",
		TLS: &tls.Config{}, Retry: retry, Timeout: 30 * time.Second,
		Log: slog.New(slog.NewJSONHandler(&logged, nil))})
	require.NoError(t, err)
	s := &script{replies: replies}
	c.transport = s
	c.proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	return c, s, &logged
}

func TestEnroll_retries_what_may_pass_and_nothing_else(t *testing.T) {
	for _, row := range []struct {
		is    string
		first reply
		tries int
	}{
		{"400", reply{status: 400}, 1}, {"401", reply{status: 401}, 1},
		{"403", reply{status: 403}, 1}, {"404", reply{status: 404}, 1},
		{"409", reply{status: 409}, 1}, {"431", reply{status: 431}, 1},
		{"501", reply{status: 501}, 1}, {"505", reply{status: 505}, 1},
		{"a redirect", reply{status: 302}, 1}, {"an answer that is none", reply{status: 200, body: "hello"}, 1},
		{"400 from Go's HTTP server, for a request that was cut short", reply{status: 400, body: "400 Bad Request"}, 2},
		{"400 from it for anything else", reply{status: 400, body: "400 Bad Request: malformed Host header"}, 1},
		{"408", reply{status: 408}, 2}, {"429", reply{status: 429}, 2}, {"500", reply{status: 500}, 2},
		{"500 for other names than the requested ones",
			reply{status: 500, body: `{"errorMessage":"x","reason":"unexpectedNames"}`}, 1},
		{"500 for an unknown reason", reply{status: 500, body: `{"errorMessage":"x","reason":"full moon"}`}, 2},
		{"502", reply{status: 502}, 2}, {"503", reply{status: 503}, 2}, {"504", reply{status: 504}, 2},
		{"a refused connection", reply{err: syscall.ECONNREFUSED}, 2}, {"a closed connection", reply{err: io.EOF}, 2},
		{"a time-out", reply{takes: time.Hour}, 2},
		{"an untrusted server", reply{err: &tls.CertificateVerificationError{Err: errors.New("x")}}, 1},
	} {
		t.Run(row.is, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s, _ := scripted(t, usual, row.first, success)
				_, err := c.Enroll(t.Context(), goldenSecrets())
				assert.Len(t, s.at, row.tries)
				assert.Equal(t, row.tries == 1, err != nil, "error: %v", err)
			})
		})
	}
}

func TestEnroll_without_retry_tries_once(t *testing.T) {
	c, s, logged := scripted(t, nil, reply{status: 503, body: `{"errorMessage":"starting"}`}, success)
	assert.EqualError(t, enroll(t, c), "CertService answered 503 Service Unavailable: starting")
	assert.Len(t, s.at, 1)
	assert.Empty(t, logged)
}

func TestEnroll_waits_grow_within_their_bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, forever, append(make503(12), success)...)
		require.NoError(t, enroll(t, c))
		waits := s.waits()
		require.Len(t, waits, 12)
		interval := time.Second
		for i, w := range waits {
			assert.GreaterOrEqual(t, w, interval/2, "wait %d", i)
			assert.LessOrEqual(t, w, min(interval*3/2, 30*time.Second)+time.Microsecond, "wait %d", i)
			interval = min(interval*2, 20*time.Second) // whose upper end is MaxInterval
		}
	})
}

func make503(n int) []reply {
	replies := make([]reply, n)
	for i := range replies {
		replies[i] = reply{status: 503}
	}
	return replies
}

func TestEnroll_gives_up_after_MaxElapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, usual, reply{status: 503, body: `{"errorMessage":"starting"}`})
		_, err := c.Enroll(t.Context(), goldenSecrets())
		assert.Regexp(t,
			`^giving up after \d+ tries in \dm[0-9.]+s: CertService answered 503 Service Unavailable: starting$`,
			err.Error())
		var status *StatusError
		assert.ErrorAs(t, err, &status)
		elapsed := s.at[len(s.at)-1].Sub(s.at[0])
		assert.LessOrEqual(t, elapsed, 5*time.Minute)
		assert.GreaterOrEqual(t, elapsed, 4*time.Minute)
	})
}

func TestEnroll_obeys_Retry_After(t *testing.T) {
	for _, row := range []struct {
		is, value  string
		least      time.Duration
		most       time.Duration
		maxElapsed time.Duration
	}{
		{"seconds", "40", 40 * time.Second, 44 * time.Second, 5 * time.Minute},
		{"a date", "Sat, 01 Jan 2000 00:01:00 GMT", 60 * time.Second, 66 * time.Second, 5 * time.Minute},
		{"less than the backoff's own wait", "1", time.Second,
			1500*time.Millisecond + time.Microsecond, 5 * time.Minute},
		{"more than the bound", "86400", MaxRetryAfter, MaxRetryAfter, 0},
	} {
		t.Run(row.is, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s, _ := scripted(t, &Retry{time.Second, 30 * time.Second, row.maxElapsed},
					reply{status: 503, retryAfter: row.value}, success)
				require.NoError(t, enroll(t, c))
				assert.GreaterOrEqual(t, s.waits()[0], row.least)
				assert.LessOrEqual(t, s.waits()[0], row.most)
			})
		})
	}
}

func TestEnroll_Retry_After_holds_for_one_wait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, &Retry{time.Second, 2 * time.Second, 0},
			reply{status: 503, retryAfter: "60"}, reply{status: 503}, success)
		require.NoError(t, enroll(t, c))
		assert.LessOrEqual(t, s.waits()[1], 2*time.Second)
	})
}

func TestEnroll_Retry_After_past_MaxElapsed_ends_at_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, usual, reply{status: 429, retryAfter: "600", body: `{"errorMessage":"busy"}`})
		assert.EqualError(t, enroll(t, c),
			"giving up after one try, as the server asks to wait another 10m0s: CertService "+
				"answered 429 Too Many Requests: busy")
		assert.Len(t, s.at, 1)
	})
}

func TestEnroll_cancelled_while_waiting_ends_at_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := scripted(t, &Retry{time.Minute, time.Minute, 0},
			reply{status: 503, body: `{"errorMessage":"starting"}`})
		ctx, cancel := context.WithCancelCause(t.Context())
		terminated := errors.New("terminated by SIGTERM")
		time.AfterFunc(3*time.Second, func() { cancel(terminated) })
		began := time.Now()
		_, err := c.Enroll(ctx, goldenSecrets())
		assert.ErrorIs(t, err, terminated)
		assert.EqualError(t, err,
			"terminated by SIGTERM; before that, try 1 failed: CertService answered 503 Service Unavailable: starting")
		assert.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestEnroll_cancelled_while_asking_returns_the_cause(t *testing.T) {
	for _, retry := range []*Retry{nil, {time.Second, time.Second, 0}} {
		synctest.Test(t, func(t *testing.T) {
			c, _, _ := scripted(t, retry, reply{takes: time.Hour})
			ctx, cancel := context.WithCancelCause(t.Context())
			terminated := errors.New("terminated by SIGTERM")
			time.AfterFunc(3*time.Second, func() { cancel(terminated) })
			_, err := c.Enroll(ctx, goldenSecrets())
			assert.Equal(t, terminated, err)
		})
	}
}

func TestEnroll_deadline_of_the_caller_is_not_a_failed_try(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, &Retry{time.Second, time.Second, 0}, reply{takes: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := c.Enroll(ctx, goldenSecrets())
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Len(t, s.at, 1)
	})
}

func TestEnroll_logs_one_line_for_each_failed_try_without_secrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := goldenRequest(t, "enroll.request.json").Headers["PK"]
		echo := reply{status: 503, body: `{"errorMessage":"no room for ` + key + `"}`}
		c, s, logged := scripted(t, forever, echo, reply{err: syscall.ECONNREFUSED}, success)
		require.NoError(t, enroll(t, c))
		lines := strings.Split(strings.TrimSpace(logged.String()), "\n")
		require.Len(t, lines, 2)
		for i, want := range []string{
			"CertService answered 503 Service Unavailable: no room for [left out: part of the request]",
			"connecting to certservice:8443: connection refused: nothing listens there (yet): " +
				"check that CertService is up, and the port in REQUEST_URL (connection refused)",
		} {
			var line struct {
				Level, Msg, Operation, Error string
				Try                          int
				NextIn                       time.Duration `json:"next_in"` // the plain handler writes nanoseconds
			}
			require.NoError(t, json.Unmarshal([]byte(lines[i]), &line))
			assert.Equal(t, "WARN", line.Level)
			assert.Equal(t, "CertService request failed, trying again", line.Msg)
			assert.Equal(t, "enroll", line.Operation)
			assert.Equal(t, i+1, line.Try)
			assert.Equal(t, want, line.Error)
			assert.InDelta(t, s.waits()[i], line.NextIn, float64(time.Millisecond))
		}
	})
}
