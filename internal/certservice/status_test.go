package certservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// onPlain asks the plain port.
func (s *service) onPlain(path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.Ops().ServeHTTP(w, r)
	return w
}

func (s *service) statusJSON() (status serviceStatus) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal(s.onPlain("/status.json").Body.Bytes(), &status))
	return status
}

func TestPages_headers_allowNothingButTheStyle(t *testing.T) {
	s := newService(t, nil, nil)
	for _, path := range []string{"/", "/status", "/status?refresh=off", "/api", "/docs", "/swagger-ui.html"} {
		header := s.onPlain(path).Header()
		assert.Equal(t, "text/html; charset=utf-8", header.Get("Content-Type"), path)
		assert.Regexp(t, `^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; img-src data:; base-uri 'none'; `+
			`form-action 'none'; frame-ancestors 'none'$`, header.Get("Content-Security-Policy"), path)
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
		assert.Equal(t, "same-origin", header.Get("Cross-Origin-Resource-Policy"), path)
	}
	for path, want := range map[string]string{"/": "no-store", "/status.json": "no-store", "/api": "no-cache"} {
		assert.Equal(t, want, s.onPlain(path).Header().Get("Cache-Control"), path)
	}
	etag := s.onPlain("/docs").Header().Get("ETag")
	assert.Equal(t, http.StatusNotModified, s.onPlain("/docs", "If-None-Match", etag).Code)
	assert.Equal(t, http.StatusOK, s.onPlain("/docs", "If-None-Match", `"another"`).Code)
	assert.Equal(t, etag, s.onPlain("/swagger-ui/index.html").Header().Get("ETag"))
	assert.Equal(t, string(openAPIHTML), s.get("/docs", nil).text, "on the API's port")
}

func TestStatus_requests_areCountedAndRemembered(t *testing.T) {
	s := serviceOf(t, configurationOf(t, failing(&FailedError{Text: "no way", Err: errors.New("to 192.0.2.1")})))
	s.enroll()
	s.get("/v1/certificate/Nowhere", enrollHeader(t))
	s.get("/ready", nil)
	s.do(s.clientWith(), http.MethodGet, enrollPath, nil, "")
	s.audit()
	status := s.statusJSON()
	require.Len(t, status.Authorities, 1)
	ca := status.Authorities[0]
	assert.Equal(t, map[outcome]int{outcomeFailed: 1}, ca.Requests)
	assert.Equal(t, stateFailing, ca.State)
	assert.Equal(t, "no way", ca.LastError.Text, "without addresses, as clients are told")
	require.Len(t, status.Requests, 2, "probes and strangers are left out")
	assert.Equal(t, outcomeUnknownCA, status.Requests[0].Outcome)
	assert.Empty(t, status.Requests[0].CA, "a name that a client made up")
	assert.Equal(t, "RA", status.Requests[1].CA)
	assert.Equal(t, 500, status.Requests[1].Status)
}

// configurationOf has one CA, RA, with the authority.
func configurationOf(t *testing.T, a Authority) *Configuration {
	t.Helper()
	c, _, _ := newConfiguration(t, fileOf(entryText("RA")))
	c.build = func(Server) (Authority, error) { return a, nil }
	require.NoError(t, c.Reload("start"))
	return c
}

// relayFails is a CA that cannot be reached.
type relayFails struct{ polled }

func (*relayFails) Relay(context.Context, *cmp.PKIMessage, bool) (cmp.Relayed, error) {
	return cmp.Relayed{}, &cmp.TransportError{Err: errors.New("dialing http://192.0.2.1/?token=secret")}
}

func TestStatus_relayedMessage_isCountedForItsCA(t *testing.T) {
	s := serviceOf(t, configurationOf(t, &relayFails{}))
	askCMP(t, s, cmp.PKIBody{Type: cmp.BodyPollReq, Content: cmp.PollReqContent{0}})
	s.asked++
	s.audit()
	ca := s.statusJSON().Authorities[0]
	assert.Equal(t, stateFailing, ca.State)
	assert.Equal(t, "systemUnavail: the CA could not be reached; the log of the CertService has more",
		ca.LastError.Text)
}

func TestStatus_record_isBounded(t *testing.T) {
	r := record{}
	for i := range 3 * mostRecorded {
		r.add(&event{operation: operationEnroll, caKnown: true, caName: fmt.Sprint(i), outcome: outcomeFailed,
			told: strings.Repeat("x", 10000), requestID: strings.Repeat("y", 10000)}, time.Now())
	}
	assert.LessOrEqual(t, len(r.of), mostRecorded)
	list := r.requests()
	assert.Len(t, list, mostRecent)
	assert.Equal(t, fmt.Sprint(3*mostRecorded-1), list[0].CA, "the newest first")
	assert.Equal(t, strings.Repeat("y", mostShownID)+"…", list[0].RequestID)
	last := authorityStatus{Name: list[0].CA}
	r.fill(&last)
	assert.LessOrEqual(t, len(last.LastError.Text), maxLoggedText+len("…"))
}

func TestStatus_state_isThatOfTheLastAnswer(t *testing.T) {
	for events, want := range map[string]authorityState{
		"": stateUnasked, "issued": stateIssuing, "failed": stateFailing, "refused": stateRefusing,
		"failed issued": stateIssuing, "issued refused": stateRefusing, "issued overloaded": stateIssuing,
		"refused failed": stateFailing, "bad_request": stateUnasked,
	} {
		r, start := record{}, time.Now()
		for i, o := range strings.Fields(events) {
			r.add(&event{caKnown: true, caName: "RA", outcome: outcome(o)}, start.Add(time.Duration(i)*time.Second))
		}
		s := authorityStatus{Name: "RA"}
		r.fill(&s)
		assert.Equal(t, want, s.state(), events)
	}
}

// hostileText tries to leave an element, an attribute, a style sheet and a comment.
const hostileText = `</td></style><script>alert(1)</script>"'> onclick="x" <!-- {{.}} ` + "\x00\u202e"

// statusWith has the text in all places.
func statusWith(text string) serviceStatus {
	now := time.Now()
	return serviceStatus{
		Version: text, Go: text, Problem: text, Made: now,
		Certificate: &certificateStatus{Subject: text, Names: []string{text}, Issuer: text, Serial: text},
		Readings:    []readingStatus{{What: readKind(text), Holds: text, Version: text, Loaded: &now, Fault: text}},
		CRLs:        []crlStatus{{Issuer: text}},
		Authorities: []authorityStatus{{Name: text, URL: text, Trust: text, Protection: text,
			Requests:  map[outcome]int{outcome(text): 1},
			LastError: &errorStatus{Outcome: outcome(text), Text: text, RequestID: text}}},
		Requests: []requestStatus{{Operation: text, CA: text, Outcome: outcome(text), RequestID: text}},
	}
}

func TestStatusPage_hostileTexts_staysTexts(t *testing.T) {
	good, bad := string(statusWith("text").html(30)), string(statusWith(hostileText).html(30))
	for _, mark := range []string{"<", ">", `"`, "'"} {
		assert.Equal(t, strings.Count(good, mark), strings.Count(bad, mark), mark)
	}
	assert.Contains(t, bad, "&lt;script&gt;")
}

func TestStatusPage_refreshes_unlessItIsPaused(t *testing.T) {
	s := newService(t, nil, nil)
	const refresh = `http-equiv="refresh"`
	assert.Contains(t, s.onPlain("/status").Body.String(), refresh)
	assert.NotContains(t, s.onPlain("/status?refresh=off").Body.String(), refresh)
}

func TestStatusPage_times_areWords(t *testing.T) {
	v := statusView{serviceStatus: serviceStatus{Made: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}}
	for left, want := range map[time.Duration]string{
		-time.Hour: "expired 60 min ago bad", 0: "expired 0 s ago bad", time.Minute: "expires in 60 s warning",
		3 * time.Hour: "expires in 3 h warning", 29 * day: "expires in 29 days warning",
		31 * day: "expires in 31 days good",
	} {
		e := v.Expiry(v.Made.Add(left))
		assert.Equal(t, want, e.Text+" "+string(e.Sign))
	}
	begin, end := v.Made.Add(-16*time.Hour), v.Made.Add(9*time.Hour)
	assert.Equal(t, signGood, v.Until(begin, end).Sign, "a third of a short validity")
	assert.Equal(t, signWarning, v.Until(begin, end.Add(-2*time.Hour)).Sign)
	assert.Equal(t, "just now", v.Ago(v.Made))
	assert.Equal(t, "3 days ago", v.Ago(v.Made.Add(-3*day)))
	assert.Equal(t, "11:00:00", v.Clock(v.Made.Add(-time.Hour)))
	assert.Equal(t, "2026-05-31 12:00:00", v.Clock(v.Made.Add(-day)))
}

// Whoever knows the rest of the file could try out secrets with a hash of them.
func TestStatus_versionOfTheCAs_saysNothingOfSecrets(t *testing.T) {
	server := newCMPServer(t)
	version := func(fields map[string]any) string {
		c, _ := server.configuration(fields)
		require.NoError(t, c.Reload("start"))
		s, _ := c.metrics.readings.get(readConfiguration)
		return s.Version
	}
	one := version(nil)
	assert.Regexp(t, `^[0-9a-f]{64}$`, one)
	secrets := map[string]any{"authentication": map[string]string{"iak": "another-iak", "rv": "another-rv"}}
	assert.Equal(t, one, version(secrets))
	assert.Equal(t, one, version(map[string]any{"url": server.url + "?token=secret"}))
	assert.NotEqual(t, one, version(map[string]any{"url": server.url + "/other"}))
	assert.NotEqual(t, one, version(map[string]any{"maxInFlight": 7}))
}

func TestStatus_urls_haveNoCredentials(t *testing.T) {
	for url, want := range map[string]string{
		"http://user:pass@ca.example:8080/cmp?token=x#y": "http://ca.example:8080/cmp",
		"https://ca.example/a%2Fb":                       "https://ca.example/a%2Fb", "%": "",
	} {
		assert.Equal(t, want, publicURL(url))
	}
}
