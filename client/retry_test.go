package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
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

var usual = &Retry{time.Second, 30 * time.Second, 5 * time.Minute}

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

// failures are those of connections that a text names.
var failures = map[string]error{
	"refused": syscall.ECONNREFUSED, "closed": io.EOF,
	"not trusted": &tls.CertificateVerificationError{Err: errors.New("x")},
}

// elapsed is what the random part of waits changes, where the client gives up.
var elapsed = regexp.MustCompile(`(?s)tries \d+, lines of log \d+\n(.*)after \d+ tries in [0-9.ms]+`)

// Time is synctest's. The last reply that a text lists is given for ever.
func TestEnroll_retriesAsTheTextsSay(t *testing.T) {
	golden.Play(t, "retries.txt", func(t *testing.T, _, commands string) (outcomes string) {
		synctest.Test(t, func(t *testing.T) { outcomes = playRetries(t, commands) })
		return outcomes
	})
}

func playRetries(t *testing.T, commands string) (outcomes string) {
	retry, began := usual, time.Now()
	var replies []reply
	var s *script
	var logged *bytes.Buffer
	for command := range strings.Lines(commands) {
		outcomes += command
		verb, rest, _ := strings.Cut(strings.TrimSpace(command[1:]), ": ")
		words := strings.Split(rest, ", ")
		switch verb {
		case "tries": // the first wait, the longest one, and the time for all
			retry = &Retry{duration(words[0]), duration(words[1]), duration(words[2])}
		case "no second try":
			retry = nil
		case "status":
			status, body, _ := strings.Cut(rest, " ")
			body = strings.Replace(body, "{key}", goldenRequest(t, "enroll.request.json").Headers["PK"], 1)
			replies = append(replies, reply{status: fixture.Must(strconv.Atoi(status)), body: body})
		case "Retry-After":
			replies[len(replies)-1].retryAfter = rest
		case "times":
			replies = slices.Repeat(replies, fixture.Must(strconv.Atoi(rest)))
		case "connection":
			require.Contains(t, failures, rest)
			replies = append(replies, reply{err: failures[rest]})
		case "no answer for":
			replies = append(replies, reply{takes: duration(rest)})
		case "certificates":
			replies = append(replies, success)
		case "enrol", "enrol, terminated after", "enrol, with time for":
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			switch verb {
			case "enrol, terminated after":
				time.AfterFunc(duration(rest), func() { cancel(errors.New("terminated by SIGTERM")) })
			case "enrol, with time for":
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, duration(rest))
				defer stop()
			}
			var c *Client
			c, s, logged = scripted(t, retry, replies...)
			_, err := c.Enroll(ctx, goldenSecrets())
			counts := fmt.Sprintf("tries %d, lines of log %d\n", len(s.at), strings.Count(logged.String(), "\n"))
			if err != nil {
				counts += summary(err) + "\n"
			}
			outcomes += elapsed.ReplaceAllString(counts, "${1}after N tries in TIME")
			if cause := context.Cause(ctx); cause != nil {
				outcomes += fmt.Sprintf("at %s, says why: %t\n", time.Since(began), errors.Is(err, cause))
			}
		case "look at the log":
			for i, text := range strings.Split(strings.TrimSpace(logged.String()), "\n") {
				var line struct {
					Level, Msg, Operation, Error string
					Try                          int
					NextIn                       time.Duration `json:"next_in"` // the plain handler writes nanoseconds
				}
				require.NoError(t, json.Unmarshal([]byte(text), &line))
				assert.InDelta(t, s.waits()[i], line.NextIn, float64(time.Millisecond))
				outcomes += fmt.Sprintln(line.Level, line.Msg, line.Operation, line.Try, line.Error)
			}
		case "all tries take": // at least, at most
			outcomes += within(s.at[len(s.at)-1].Sub(s.at[0]), words)
		default: // such as "waits 6-12": at least, at most
			var from, to int
			fixture.Must(fmt.Sscanf(verb, "waits %d-%d", &from, &to))
			for _, wait := range s.waits()[from-1 : to] {
				outcomes += within(wait, words)
			}
		}
	}
	return outcomes
}

func duration(text string) time.Duration { return fixture.Must(time.ParseDuration(text)) }

// within says nothing of a time that is within its bounds.
func within(d time.Duration, bounds []string) string {
	if d >= duration(bounds[0]) && d <= duration(bounds[1])+time.Microsecond {
		return ""
	}
	return fmt.Sprintf("not so: %s\n", d)
}
