package cmp

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// over sends a CMP message over a real connection to a handler.
func over(t *testing.T, handler http.HandlerFunc, change func(*Config)) error {
	t.Helper()
	p := newPKI(t)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, log := testClient(t, nil, func(cfg *Config) {
		cfg.URL, cfg.HTTPClient = server.URL, server.Client()
		if change != nil {
			change(cfg)
		}
	})
	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
	require.Error(t, err)
	assertNoSecret(t, err.Error(), log.String())
	return err
}

func TestHostile_HTTP(t *testing.T) {
	answer := func(status int, mediaType, body string, more ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			for i := 0; i < len(more); i += 2 {
				w.Header().Set(more[i], more[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		want    string
		after   time.Duration
	}{
		"empty body":                     {answer(200, MediaType, ""), "sending CMP request: HTTP status 200: answer is empty", 0},
		"HTML with 200":                  {answer(200, "text/html", "<html>login"), `sending CMP request: HTTP status 200: answer is no CMP message: has media type "text/html", want "application/pkixcmp"; it says "login"`, 0},
		"HTML with 503":                  {answer(503, "text/html", "<html>down", "Retry-After", "120"), `sending CMP request: HTTP status 503: answer is no CMP message: has media type "text/html", want "application/pkixcmp"; it says "down"`, 2 * time.Minute},
		"503 with a date":                {answer(503, "text/html", "", "Retry-After", "Mon, 04 May 2026 03:03:01 GMT"), `sending CMP request: HTTP status 503: answer is no CMP message: has media type "text/html", want "application/pkixcmp"`, time.Minute},
		"503 with a date in the past":    {answer(503, "text/html", "", "Retry-After", "Mon, 04 May 2020 03:03:01 GMT"), `sending CMP request: HTTP status 503: answer is no CMP message: has media type "text/html", want "application/pkixcmp"`, 0},
		"503 for ever":                   {answer(503, "text/html", "", "Retry-After", "2000000000"), `sending CMP request: HTTP status 503: answer is no CMP message: has media type "text/html", want "application/pkixcmp"`, 24 * time.Hour},
		"503 with nonsense":              {answer(503, "text/html", "", "Retry-After", "-1"), `sending CMP request: HTTP status 503: answer is no CMP message: has media type "text/html", want "application/pkixcmp"`, 0},
		"404":                            {http.NotFound, `sending CMP request: HTTP status 404: answer is no CMP message: has media type "text/plain; charset=utf-8", want "application/pkixcmp"; it says "404 page not found"`, 0},
		"no content type and no content": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, `sending CMP request: HTTP status 204: answer is no CMP message: has media type "", want "application/pkixcmp"`, 0},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusTemporaryRedirect)
		}, "sending CMP request: HTTP status 307: redirected, which is not followed: the configured URL must be the CMP server's own", 0},
		"redirect that calls itself a CMP message": {answer(302, MediaType, "x", "Location", "http://evil.example/"), "sending CMP request: HTTP status 302: redirected, which is not followed: the configured URL must be the CMP server's own", 0},
		"compressed":          {answer(200, MediaType, "x", "Content-Encoding", "gzip"), `sending CMP request: HTTP status 200: answer has content encoding "gzip", want none`, 0},
		"larger than allowed": {answer(200, MediaType, string(make([]byte, 5000))), "sending CMP request: HTTP status 200: answer is larger than 4096 bytes", 0},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", MediaType)
			for {
				if _, err := w.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}, "sending CMP request: HTTP status 200: answer is larger than 4096 bytes", 0},
		"cut off by the connection": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", MediaType)
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte{0x30})
		}, "sending CMP request: HTTP status 200: reading answer: unexpected EOF", 0},
	} {
		t.Run(name, func(t *testing.T) {
			err := over(t, row.handler, func(c *Config) { c.MaxResponseSize = 4096 })
			assert.EqualError(t, err, row.want)
			var transport *TransportError
			require.ErrorAs(t, err, &transport)
			assert.Equal(t, row.after, transport.RetryAfter)
			assert.False(t, transport.Timeout)
		})
	}
}

func TestHostile_gzipBomb_isNotUnpacked(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 64<<20))
	require.NoError(t, z.Close())
	err := over(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "identity", r.Header.Get("Accept-Encoding"))
		w.Header().Set("Content-Type", MediaType)
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	}, nil)

	assert.EqualError(t, err, `sending CMP request: HTTP status 200: answer has content encoding "gzip", want none`)
}

// stalled is a server that sends the head of an answer and then nothing.
type stalled struct{}

func (stalled) RoundTrip(r *http.Request) (*http.Response, error) {
	body, writer := io.Pipe()
	context.AfterFunc(r.Context(), func() { writer.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {MediaType}}, Body: body}, nil
}

// silent is a server that accepts the request and never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestHostile_slowServer_timesOut(t *testing.T) {
	for name, server := range map[string]http.RoundTripper{"slow body": stalled{}, "no answer": silent{}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPKI(t)
				c, _ := testClient(t, nil, func(c *Config) { c.HTTPClient, c.MessageTimeout = &http.Client{Transport: server}, 7*time.Second })
				start := time.Now()

				_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

				var transport *TransportError
				require.ErrorAs(t, err, &transport)
				assert.True(t, transport.Timeout)
				assert.Equal(t, 7*time.Second, transport.Limit)
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.ErrorContains(t, err, "no answer within 7s")
				assert.Equal(t, 7*time.Second, time.Since(start))
			})
		})
	}
}

func TestHostile_slowServer_deadlineOfCallerIsNotCalledTheMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		c, _ := testClient(t, nil, func(c *Config) { c.HTTPClient, c.MessageTimeout = &http.Client{Transport: silent{}}, 7*time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		_, err := c.Initialize(ctx, Request{CSR: p.csr, Key: p.key})

		var transport *TransportError
		require.ErrorAs(t, err, &transport)
		assert.True(t, transport.Timeout)
		assert.Zero(t, transport.Limit)
	})
}

func TestClient_connectionRefused_isATransportError(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.URL
	server.Close()
	p := newPKI(t)
	c, _ := testClient(t, nil, func(c *Config) { c.URL, c.HTTPClient = address, nil })

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	var transport *TransportError
	require.ErrorAs(t, err, &transport)
	assert.Zero(t, transport.StatusCode)
	assert.Contains(t, err.Error(), "connection refused")
}

func TestClient_mediaType_mayHaveCaseAndParameters(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	for _, mediaType := range []string{"Application/PKIXCMP; charset=binary", "application/pkixcmp; parameter", "application/pkixcmp;"} {
		c, _ := testClient(t, http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
			recorder := httptest.NewRecorder()
			r.ServeHTTP(recorder, hr)
			w.Header().Set("Content-Type", mediaType)
			_, _ = w.Write(recorder.Body.Bytes())
		}), nil)

		_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

		assert.NoError(t, err, mediaType)
	}
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
