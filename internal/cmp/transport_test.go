package cmp

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func someRequest() Request {
	key := newKey()
	return Request{CSR: newCSR(key), Key: key}
}

// over sends a CMP message over a real connection to a handler.
func over(t *testing.T, handler http.HandlerFunc, change func(*Config)) error {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, log := testClient(nil, func(cfg *Config) {
		cfg.URL, cfg.HTTPClient = server.URL, server.Client()
		if change != nil {
			change(cfg)
		}
	})
	_, err := c.Initialize(t.Context(), someRequest())
	require.Error(t, err)
	assertNoSecret(t, err.Error(), log.String())
	return err
}

// TestHostile_HTTP reads testdata/http.txt: the status, headers and body of an answer, and what the
// error says.
func TestHostile_HTTP(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 64<<20))
	require.NoError(t, z.Close())
	fill := strings.NewReplacer("{bomb}", bomb.String(), "{too large}", string(make([]byte, MaxMessageSize+1)),
		"{error page of EJBCA}", string(readRecorded("unknown-alias.response.html")))
	golden.Play(t, "http.txt", func(t *testing.T, _, commands string) string {
		err := over(t, func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "identity", r.Header.Get("Accept-Encoding"))
			head, body, _ := strings.Cut(strings.ReplaceAll(commands, "> ", ""), "body: ")
			lines := strings.Split(strings.TrimSpace(head), "\n")
			w.Header()["Content-Type"] = nil
			for _, line := range lines[1:] {
				name, value, _ := strings.Cut(line, ": ")
				w.Header().Set(name, value)
			}
			w.WriteHeader(fixture.Must(strconv.Atoi(lines[0])))
			_, err := io.WriteString(w, fill.Replace(strings.TrimSpace(body)))
			for strings.Contains(body, "{endless}") && err == nil {
				_, err = w.Write(make([]byte, 1<<16))
			}
		}, nil)
		var transport *TransportError
		require.ErrorAs(t, err, &transport)
		assert.False(t, transport.Timeout)
		got := err.Error()
		if transport.RetryAfter != 0 {
			got += fmt.Sprintf("\nafter %s it may be tried again", transport.RetryAfter)
		}
		return got
	})
}

// A server that accepts the request and never answers, and one that sends the head of an answer and
// then nothing.
type silent struct{ afterHead bool }

func (s silent) RoundTrip(r *http.Request) (*http.Response, error) {
	if !s.afterHead {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	body, writer := io.Pipe()
	context.AfterFunc(r.Context(), func() { writer.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {MediaType}}, Body: body}, nil
}

func TestHostile_slowServer_timesOut(t *testing.T) {
	for name, row := range map[string]struct {
		server silent
		caller time.Duration // its deadline
		limit  time.Duration // that the error names
	}{
		"slow body": {silent{afterHead: true}, time.Hour, 7 * time.Second},
		"no answer": {silent{}, time.Hour, 7 * time.Second},
		"the deadline of the caller is not the message's": {silent{}, time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := testClient(nil, func(c *Config) {
					c.HTTPClient, c.MessageTimeout = &http.Client{Transport: row.server}, 7*time.Second
				})
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), row.caller)
				defer cancel()

				_, err := c.Initialize(ctx, someRequest())

				var transport *TransportError
				require.ErrorAs(t, err, &transport)
				assert.True(t, transport.Timeout)
				assert.Equal(t, row.limit, transport.Limit)
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, min(7*time.Second, row.caller), time.Since(start))
				if row.limit > 0 {
					assert.ErrorContains(t, err, "no answer within 7s")
				}
			})
		})
	}
}

func TestClient_connectionRefused_isATransportError(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	c, _ := testClient(nil, func(c *Config) {
		c.URL, c.HTTPClient = strings.Replace(server.URL, "//", "//user:pass@", 1)+"/cmp?token=secret", nil
	})

	_, err := c.Initialize(t.Context(), someRequest())

	var transport *TransportError
	require.ErrorAs(t, err, &transport)
	assert.Zero(t, transport.StatusCode)
	assert.ErrorContains(t, err, fmt.Sprintf("Post %q: dial tcp", server.URL+"/cmp"))
	assert.ErrorContains(t, err, "connection refused")
}

func TestClient_URLInErrors_hasNoCredentials(t *testing.T) {
	err := over(t, http.NotFound, func(c *Config) {
		c.URL = strings.Replace(c.URL, "http://", "http://user:"+testSecret+"@", 1) + "/cmp?token=secret"
	})
	var transport *TransportError
	require.ErrorAs(t, err, &transport)
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/cmp$`, transport.URL)
}

// Some servers close the connection after an answer without saying so. The certConf that follows at
// once is then written to a connection that is as good as closed: it is sent once more on a new
// one, and not more often.
func TestClient_serverThatCloses(t *testing.T) {
	for name, row := range map[string]struct {
		served      int32                         // connections on which a request is answered
		end         func(net.Conn, *bufio.Reader) // of every connection
		connections int32
		succeeds    bool
	}{
		"closed": {2, func(net.Conn, *bufio.Reader) {}, 2, true},
		"reset": {2,
			func(c net.Conn, _ *bufio.Reader) { _ = c.(*net.TCPConn).SetLinger(0) }, 2, true},
		"closed in the next request": {2,
			func(_ net.Conn, r *bufio.Reader) { _, _ = r.ReadByte() }, 2, true},
		"closed after the next request":       {2, readRequest, 2, true},
		"a new connection is not tried again": {0, readRequest, 1, false},
		"once more and no more":               {1, readRequest, 2, false},
		"not after the first byte of an answer": {2, func(c net.Conn, r *bufio.Reader) {
			readRequest(c, r)
			_, _ = io.WriteString(c, "HTTP/1.1 2")
		}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, "")
			var connections atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				recorder := httptest.NewRecorder()
				answered := connections.Add(1) <= row.served
				if answered {
					p.ServeHTTP(recorder, r)
				}
				connection, buffered, err := w.(http.Hijacker).Hijack()
				require.NoError(t, err)
				defer connection.Close()
				if answered {
					response := recorder.Result()
					response.ContentLength = int64(recorder.Body.Len())
					assert.NoError(t, response.Write(connection))
					row.end(connection, buffered.Reader)
				}
			}))
			t.Cleanup(server.Close)
			p.config.URL, p.config.HTTPClient = server.URL, server.Client()

			_, err := p.send(BodyIR)

			assert.Equal(t, row.connections, connections.Load())
			if row.succeeds {
				require.NoError(t, err)
				assert.Equal(t, "ir, certConf", p.kinds())
				return
			}
			var failed *TransportError
			require.ErrorAs(t, err, &failed)
			assert.False(t, failed.Timeout)
		})
	}
}

func readRequest(_ net.Conn, reader *bufio.Reader) { _, _ = http.ReadRequest(reader) }

// Answers that go on being sent hold no more memory than their server may have, however many there
// are. The next answer of an ordinary size is taken nevertheless, and everything is given back.
func TestAnswers_ofOneServer_shareABound(t *testing.T) {
	const transactions = 20
	var done sync.WaitGroup
	release := make(chan struct{})
	finish := sync.OnceFunc(func() { close(release) })
	defer finish()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", MediaType)
		_, _ = w.Write(make([]byte, MaxMessageSize-1000))
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	t.Cleanup(server.Close)
	bound := NewAnswers(DefaultAnswerBytes)
	c, _ := testClient(nil, func(cfg *Config) {
		cfg.URL, cfg.HTTPClient, cfg.Answers = server.URL, server.Client(), bound
	})
	errs := make(chan error, transactions)
	for range transactions {
		done.Go(func() {
			_, err := c.Initialize(t.Context(), someRequest())
			errs <- err
		})
	}
	// All but four, or more where two were refused at once, are refused while the answers go on;
	// the others wait for the rest.
	for range transactions - DefaultAnswerBytes/MaxMessageSize {
		assert.ErrorContains(t, <-errs,
			"larger than 65536 bytes, and other large answers of this server are under way")
	}
	whole := int64((MaxMessageSize - 1000 - freeAnswer) / answerStep * answerStep)
	assert.Eventually(t, func() bool { return DefaultAnswerBytes-bound.left.Load() >= whole },
		10*time.Second, time.Millisecond,
		"at least one large answer is held")

	p := newPlay(t, "")
	p.config.Answers = bound
	_, err := p.send(BodyIR)
	require.NoError(t, err)

	finish()
	done.Wait()
	assert.EqualValues(t, DefaultAnswerBytes, bound.left.Load())
}

func TestPlainText_isWhatAReaderSees(t *testing.T) {
	for page, want := range map[string]string{
		"":                          "",
		"no such alias\r\n\x1b[31m": "no such alias [31m",
		"<html><head><title>Error</title></head><body>it</body>":                       "it",
		"<html><head><title>Only a title</title></head></html>":                        "Only a title",
		"<HTML><BODY class='x'><h1>HTTP 500</h1><p>a &amp; b &lt;c":                    "HTTP 500 a & b <c",
		"<style>p {color: red}</style>a<script>if (a < b) {}</script>b<!-- c > d -->e": "a b e",
		"<body>cut off in a <a href='":                                                 "cut off in a",
		"<!DOCTYPE html><p>x":                                                          "x",
	} {
		assert.Equal(t, want, plainText(page), page)
	}
	assert.Equal(t, strings.Repeat("é ", 150)+"…", plainText(strings.Repeat("é<b>", 10_000)))
}

func FuzzPlainText(f *testing.F) {
	f.Add("<html><head><title>Error</title></head><body>CMP alias 'nosuch' does not exist</body></html>")
	f.Add("<script>a</script><style>b</style><!-- c -->&amp;<")
	f.Fuzz(func(t *testing.T, page string) {
		text := plainText(page)
		assert.LessOrEqual(t, len([]rune(text)), maxWordsShown+1)
		assert.NotContains(t, text, "\n")
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "120", "-1", "Mon, 04 May 2026 03:03:01 GMT", "99999999999999999999"} {
		f.Add(seed)
	}
	transport := transport{now: func() time.Time { return testNow }}
	f.Fuzz(func(t *testing.T, value string) {
		wait := transport.retryAfter(value)
		assert.GreaterOrEqual(t, wait, time.Duration(0))
		assert.LessOrEqual(t, wait, maxRetryAfter)
	})
}
