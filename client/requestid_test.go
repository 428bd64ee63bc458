package client

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/requestid"
)

// What a server calls a request is in our error, unless that would break a line or show a key.
func TestStatusError_namesTheRequest(t *testing.T) {
	key := goldenRequest(t, "enroll.request.json").Headers["PK"]
	piece := regexp.MustCompile(`[A-Za-z0-9]{40,60}`).FindString(key)
	require.NotEmpty(t, piece)
	for _, row := range []struct{ is, sent, want string }{
		{"nothing", "", ""},
		{"its own", "7f3b2c1e-9d4a", " (for the operator of CertService, this is request 7f3b2c1e-9d4a)"},
		{"too long", strings.Repeat("a", 65), ""},
		{"another text", "a b", ""},
		{"a piece of the key", piece, ""},
	} {
		m := newMutual(t)
		m.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Request-Id", row.sent)
			http.Error(w, `{"errorMessage":"no"}`, http.StatusInternalServerError)
		})
		const answered = "CertService answered 500 Internal Server Error: no"
		assert.EqualError(t, enroll(t, m.client()), answered+row.want, row.is)
	}
}

// All tries of an attempt have its id, and each is a span of its own.
func TestClient_tries_haveOneRequestID(t *testing.T) {
	m := newMutual(t)
	var ids, spans []string
	m.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids, spans = append(ids, r.Header.Get("X-Request-Id")), append(spans, r.Header.Get("traceparent"))
		status := http.StatusServiceUnavailable
		if len(ids) == 3 {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
	})
	m.cfg.Retry = &Retry{InitialInterval: time.Millisecond, MaxInterval: time.Millisecond,
		MaxElapsed: time.Minute}
	ctx := requestid.With(t.Context(), requestid.New(), "")
	_, err := m.client().Enroll(ctx, goldenSecrets())
	require.Error(t, err)
	require.Len(t, ids, 3)
	assert.NotEqual(t, spans[0], spans[1])
	for i := range ids {
		assert.Equal(t, requestid.From(ctx), ids[i])
		assert.Regexp(t, "^00-"+ids[i]+"-[0-9a-f]{16}-00$", spans[i])
	}
}
