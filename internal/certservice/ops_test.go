package certservice

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHandler_actuatorHealth_isSpringsAnswer(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)

	r := s.get(t, "/actuator/health", nil)

	assert.Equal(t, http.StatusOK, r.StatusCode)
	assert.JSONEq(t, `{"status":"UP"}`, r.text)
	assert.Equal(t, "DEBUG", s.audit(t)["level"])
}

func TestHandler_ops_answersWithoutAClientCertificate(t *testing.T) {
	c, path, _ := newConfiguration(t, "{}")
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })
	ops := s.handler.Ops()
	status := func(method, path string) int {
		w := httptest.NewRecorder()
		ops.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code
	}

	for _, probe := range []string{"/ready", "/readyz"} {
		assert.Equal(t, http.StatusServiceUnavailable, status(http.MethodGet, probe), probe)
	}
	writeFile(t, path, serversFile("RA"))
	assert.NoError(t, c.Reload("start"))
	for _, probe := range []string{"/ready", "/readyz", "/healthz", "/actuator/health", "/metrics"} {
		assert.Equal(t, http.StatusOK, status(http.MethodGet, probe), probe)
		assert.Equal(t, http.StatusOK, status(http.MethodHead, probe), probe)
		assert.Equal(t, http.StatusOK, status(http.MethodGet, probe+"/"), probe)
		assert.Equal(t, http.StatusMethodNotAllowed, status(http.MethodPost, probe), probe)
	}
	for _, guarded := range []string{"/reload", "/v1/certificate/RA", "/openapi.yaml", "/"} {
		assert.Equal(t, http.StatusNotFound, status(http.MethodGet, guarded), guarded)
	}
}

func TestMetrics_countWhatTheServiceDoes(t *testing.T) {
	var err error
	m := NewMetrics("1.2.3")
	m.ObserveCertificate(func() *x509.Certificate {
		return &x509.Certificate{NotBefore: time.Unix(1800000000, 0), NotAfter: time.Unix(1900000000, 0)}
	})
	c, _, _ := newConfiguration(t, serversFile("RA"))
	c.metrics = m
	c.build = func(Server) (Authority, error) {
		return funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
			if err != nil {
				return Issued{}, err
			}
			return goldenAuthority(t).Enroll(ctx, r)
		}), nil
	}
	assert.NoError(t, c.Reload("start"))
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory, cfg.Metrics = c, m })

	s.get(t, "/v1/certificate/RA", enrollHeader(t))
	s.get(t, "/v1/certificate/RA", nil)
	s.get(t, "/v1/certificate/invented", enrollHeader(t))
	err = &RefusedError{FailInfo: []string{"badPOP", "badRequest"}}
	s.get(t, "/v1/certificate/RA", enrollHeader(t))
	err = &RefusedError{FailInfo: []string{"badTime"}, Unauthenticated: true}
	s.get(t, "/v1/certificate/RA", enrollHeader(t))
	err = context.Canceled
	s.get(t, "/v1/certificate/RA", enrollHeader(t))
	s.get(t, "/nowhere", nil)
	s.do(t, s.clientWith(t), http.MethodGet, "/ready", nil, nil)

	var text string
	eventually(t, func() bool { // the last request is counted after it is answered
		var b bytes.Buffer
		m.Write(&b)
		text = b.String()
		return strings.Contains(text, `outcome="unauthorized"`)
	})
	for _, line := range []string{
		`certservice_requests_total{ca="RA",operation="enroll",outcome="issued"} 1`,
		`certservice_requests_total{ca="RA",operation="enroll",outcome="bad_request"} 1`,
		`certservice_requests_total{ca="RA",operation="enroll",outcome="refused"} 2`,
		`certservice_requests_total{ca="RA",operation="enroll",outcome="failed"} 1`,
		`certservice_requests_total{ca="",operation="enroll",outcome="unknown_ca"} 1`,
		`certservice_requests_total{ca="",operation="none",outcome="not_found"} 1`,
		`certservice_requests_total{ca="",operation="ready",outcome="unauthorized"} 1`,
		`certservice_request_duration_seconds_count{operation="enroll"} 6`,
		`certservice_cmp_duration_seconds_count{ca="RA",operation="enroll"} 4`,
		`certservice_cmp_refusals_total{ca="RA",fail_info="badPOP"} 1`,
		`certservice_cmp_refusals_total{ca="RA",fail_info="badRequest"} 1`,
		`certservice_cmp_refusals_total{ca="RA",fail_info="not_authenticated"} 1`,
		`certservice_config_reloads_total{outcome="ok"} 1`,
		`certservice_config_servers 1`,
		`certservice_certificate_not_before_timestamp_seconds 1800000000`,
		`certservice_certificate_expiry_timestamp_seconds 1900000000`,
		`certservice_in_flight_requests 0`,
	} {
		assert.Contains(t, text, line+"\n")
	}
	assert.Contains(t, text, `certservice_build_info{version="1.2.3",go_version="go`)
	assert.Contains(t, text, `certservice_request_duration_seconds_bucket{operation="enroll",le="+Inf"} 6`)
	assert.NotContains(t, text, "badTime", "anybody could have said it")
	assert.Contains(t, text, "process_resident_memory_bytes")
	assert.NotContains(t, text, "invented")
}

// written is what a scrape brings.
func written(m *Metrics) string {
	var b bytes.Buffer
	m.Write(&b)
	return b.String()
}

// A series that appears with 1 is no increase for Prometheus: the first failure would be seen by no alert.
func TestMetrics_requestsOfAConfiguredCA_areThereBeforeTheFirst(t *testing.T) {
	m := NewMetrics("1.2.3")
	c, path, _ := newConfiguration(t, "{}")
	c.metrics = m
	shown := func() string { return written(m) }
	assert.Error(t, c.Reload("start"))
	assert.NotContains(t, shown(), "certservice_requests_total")

	for _, ca := range []string{"RA", "NEW"} {
		writeFile(t, path, serversFile(ca))
		assert.NoError(t, c.Reload("request"))
		for _, operation := range []string{"enroll", "update"} {
			for _, outcome := range []string{"issued", "failed", "refused"} {
				assert.Contains(t, shown(), fmt.Sprintf("certservice_requests_total{ca=%q,operation=%q,outcome=%q} 0\n", ca, operation, outcome))
			}
		}
	}

	m.requests("RA", "enroll", outcomeFailed).Inc()
	assert.NoError(t, c.Reload("request"))
	assert.Contains(t, shown(), `certservice_requests_total{ca="RA",operation="enroll",outcome="failed"} 1`+"\n", "what was counted stays")
}

// A counter rises once, however long the fault stays; these say how things are.
func TestMetrics_lastReload_isSuccessfulUnlessTheLastOneFailed(t *testing.T) {
	m := NewMetrics("1.2.3")
	c, path, _ := newConfiguration(t, "{}")
	c.metrics = m
	shown := func() string { return written(m) }
	assert.Contains(t, shown(), "certservice_identity_last_reload_successful 1\n")
	assert.NotContains(t, shown(), "certservice_config_last_reload_successful", "nothing was read yet")

	m.CountIdentityReload(errors.New("unusable"))
	assert.Error(t, c.Reload("start"))
	assert.Contains(t, shown(), "certservice_identity_last_reload_successful 0\n")
	assert.Contains(t, shown(), "certservice_config_last_reload_successful 0\n")

	m.CountIdentityReload(nil)
	writeFile(t, path, serversFile("RA"))
	assert.NoError(t, c.Reload("request"))
	assert.Contains(t, shown(), "certservice_identity_last_reload_successful 1\n")
	assert.Contains(t, shown(), "certservice_config_last_reload_successful 1\n")
}
