package certservice

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What certfetcher doctor asks is bound to be refused; operators must not take it for clients that do not work.
func TestHandler_doctor_leavesNoWarningAndIsCountedApart(t *testing.T) {
	m := NewMetrics("")
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) { cfg.Metrics = m })
	doctor := func(more http.Header) http.Header {
		h := http.Header{"User-Agent": {"certfetcher/1.2.3 (doctor)"}}
		for name, values := range more {
			h[name] = values
		}
		return h
	}

	assert.Equal(t, http.StatusBadRequest, s.get(t, "/v1/certificate/RA", doctor(nil)).StatusCode)
	assert.Equal(t, http.StatusNotFound, s.get(t, "/v1/certificate/-", doctor(nil)).StatusCode)
	assert.Equal(t, http.StatusOK, s.get(t, "/ready", doctor(nil)).StatusCode)
	eventually(t, func() bool { return len(s.lines(t, "request")) == 3 })

	for _, line := range s.lines(t, "request") {
		assert.NotEqual(t, "WARN", line["level"])
		assert.Equal(t, true, line["doctor"])
	}
	assert.Contains(t, written(m), `certservice_requests_total{ca="RA",operation="doctor",outcome="bad_request"} 1`)
	assert.Contains(t, written(m), `certservice_requests_total{ca="",operation="doctor",outcome="unknown_ca"} 1`)
	assert.NotContains(t, written(m), `operation="enroll"`)

	// Only trials: not what may issue something, and not who is not trusted.
	header := enrollHeader(t)
	header.Set("PK", "?")
	s.get(t, "/v1/certificate/RA", doctor(header))
	s.do(t, s.clientWith(t), http.MethodGet, "/ready", doctor(nil), nil)
	eventually(t, func() bool { return len(s.lines(t, "request")) == 5 })
	for _, line := range s.lines(t, "request")[3:] {
		assert.Equal(t, "WARN", line["level"])
	}
	assert.Contains(t, written(m), `certservice_requests_total{ca="RA",operation="enroll",outcome="bad_request"} 1`)
	assert.Equal(t, 2, bytes.Count(s.log.bytes(), []byte(`"WARN"`)))
}
