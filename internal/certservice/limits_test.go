package certservice

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHandler_maxInFlight_refusesTheRequestAboveIt(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		entered <- struct{}{}
		<-leave
		return goldenAuthority(t).Enroll(ctx, r)
	}), func(cfg *HandlerConfig) { cfg.MaxInFlight = 1 })
	header := enrollHeader(t)
	first := make(chan int)
	go func() { first <- s.get(t, "/v1/certificate/RA", header).StatusCode }()
	<-entered

	second := s.get(t, "/v1/certificate-update/RA", header)

	assert.Equal(t, http.StatusServiceUnavailable, second.StatusCode)
	assert.JSONEq(t, `{"errorMessage":"Too many requests in flight, try again later"}`, second.text)
	seconds, err := strconv.Atoi(second.Header.Get("Retry-After"))
	require.NoError(t, err)
	assert.True(t, seconds >= 1 && seconds <= 5, "Retry-After is %d", seconds)
	assert.Equal(t, http.StatusOK, s.get(t, "/ready", nil).StatusCode, "probes are not counted")

	close(leave)
	assert.Equal(t, http.StatusOK, <-first)
	assert.Equal(t, http.StatusOK, s.get(t, "/v1/certificate/RA", header).StatusCode, "the place is free again")
}

func TestHandler_timeout_endsTheCallToTheAuthority(t *testing.T) {
	s := newService(t, funcAuthority(func(ctx context.Context, _ Request) (Issued, error) {
		<-ctx.Done()
		return Issued{}, ctx.Err()
	}), func(cfg *HandlerConfig) { cfg.Timeout = time.Millisecond })

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.JSONEq(t, `{"errorMessage":"Exception occurred during call to cmp client: context deadline exceeded"}`, r.text)
}

func TestHandler_panic_isThatRequestsOwn(t *testing.T) {
	calls := 0
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		if calls++; calls == 1 {
			var none []int
			_ = none[calls]
		}
		return goldenAuthority(t).Enroll(ctx, r)
	}), func(cfg *HandlerConfig) { cfg.MaxInFlight = 1 })

	first := s.get(t, "/v1/certificate/RA", enrollHeader(t))
	second := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusInternalServerError, first.StatusCode)
	assert.JSONEq(t, `{"errorMessage":"Internal server error"}`, first.text)
	assert.Equal(t, http.StatusOK, second.StatusCode, "the place in flight is free again")
	lines := s.lines(t, "panic while serving a request")
	require.Len(t, lines, 1)
	assert.Equal(t, "runtime error: index out of range [1] with length 0", lines[0]["panic"])
	assert.Contains(t, lines[0]["stack"], "limits_test.go")
}

func TestHandler_headers_mayTake64KiB(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	header := enrollHeader(t)
	header.Set("X-Filler", strings.Repeat("x", 60<<10))
	assert.Equal(t, http.StatusOK, s.get(t, "/v1/certificate/RA", header).StatusCode)

	header.Set("X-Filler", strings.Repeat("x", 64<<10))
	for _, path := range []string{"/v1/certificate/RA", "/nowhere"} {
		r := s.get(t, path, header)
		assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, r.StatusCode)
		assert.JSONEq(t, `{"errorMessage":"The headers of the request take more than 64 KiB"}`, r.text)
	}
	r := s.do(t, s.clientWith(t), http.MethodGet, "/v1/certificate/RA", header, nil)
	assert.Equal(t, http.StatusUnauthorized, r.StatusCode, "who asks comes first")
	assert.Equal(t, "headers_too_large", s.lines(t, "request")[1]["outcome"])
}
