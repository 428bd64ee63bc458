package certservice

import (
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A request has the id that its client gave it, in the answer, in the body of an error and in each line
// of the log, unless that is none: then it has one of ours.
func TestHandler_requestID(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, row := range []struct {
		is    string
		given []string
		own   bool
	}{
		{"its client's", []string{"7f3b2c1e-9d4a"}, false},
		{"ours where there is none", nil, true},
		{"ours where there are two", []string{"a", "b"}, true},
		{"ours where it would break a line", []string{`a","level":"INFO`}, true},
	} {
		for _, path := range []string{enrollPath, "/nowhere", "/v1/certificate/panics"} {
			s := newService(t, failing(errors.New("down")), func(cfg *HandlerConfig) {
				cfg.Directory = static{"RA": failing(errors.New("down")), "panics": nil}
			})
			header := enrollHeader(t)
			header["X-Request-Id"] = row.given
			header.Set("traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
			r := s.get(path, header)
			id := r.Header.Get("X-Request-Id")
			if row.own {
				assert.Regexp(t, "^[0-9a-f]{32}$", id, row.is)
			} else {
				assert.Equal(t, row.given[0], id, row.is)
			}
			assert.NotEqual(t, http.StatusOK, r.StatusCode)
			s.audit()
			for _, line := range append(s.lines("request"), s.lines("panic while serving a request")...) {
				assert.Equal(t, id, line["request_id"], row.is)
				assert.Equal(t, trace, line["trace_id"], row.is)
			}
			panics := map[string]int{"/v1/certificate/panics": 1}
			assert.Len(t, s.lines("panic while serving a request"), panics[path])
		}
	}
}
