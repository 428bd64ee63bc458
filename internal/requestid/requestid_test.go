package requestid

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

const trace = "4bf92f3577b34da6a3ce929d0e0e4736"

func TestOf_takesWhatBreaksNothing(t *testing.T) {
	for _, row := range []struct {
		is     string
		values []string
		want   string
	}{
		{"nothing", nil, ""},
		{"a UUID", []string{"7f3b2c1e-9d4a-4c5b-8e6f-0a1b2c3d4e5f"}, "7f3b2c1e-9d4a-4c5b-8e6f-0a1b2c3d4e5f"},
		{"of 64 letters", []string{strings.Repeat("a", 64)}, strings.Repeat("a", 64)},
		{"of 65 letters", []string{strings.Repeat("a", 65)}, ""},
		{"empty", []string{""}, ""},
		{"two", []string{"a", "b"}, ""},
		{"with a space", []string{"a b"}, ""},
		{"with the end of a JSON text", []string{`a","level":"INFO`}, ""},
		{"with an escape sequence", []string{"a\x1b[31m"}, ""},
		{"with a line end", []string{"a\nb"}, ""},
		{"not ASCII", []string{"ä"}, ""},
		{"Base64 of a key", []string{"LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCg=="}, ""},
	} {
		assert.Equal(t, row.want, Of(http.Header{Header: row.values}), row.is)
	}
}

func TestTraceOf_readsTraceparent(t *testing.T) {
	const span = "-00f067aa0ba902b7"
	for _, row := range []struct{ is, value, want string }{
		{"nothing", "", ""},
		{"sampled", "00-" + trace + span + "-01", trace},
		{"of a later version", "cc-" + trace + span + "-01-what-comes", trace},
		{"too long for its version", "00-" + trace + span + "-01-x", ""},
		{"of the version that there is not", "ff-" + trace + span + "-01", ""},
		{"without flags", "00-" + trace + span, ""},
		{"in upper case", "00-" + strings.ToUpper(trace) + span + "-01", ""},
		{"of zeros", "00-" + strings.Repeat("0", 32) + span + "-01", ""},
		{"with a parent of zeros", "00-" + trace + "-" + strings.Repeat("0", 16) + "-01", ""},
		{"short", "00-4bf9" + span + "-01", ""},
		{"not hexadecimal", "00-" + strings.Repeat("x", 32) + span + "-01", ""},
	} {
		header := http.Header{}
		header.Set("traceparent", row.value)
		assert.Equal(t, row.want, TraceOf(header), row.is)
	}
}

func TestSet_namesTheAttemptAndEachRequest(t *testing.T) {
	none := http.Header{}
	Set(t.Context(), none)
	assert.Empty(t, none)
	ctx, first, second := With(t.Context(), New(), ""), http.Header{}, http.Header{}
	Set(ctx, first)
	Set(ctx, second)
	assert.Equal(t, From(ctx), Of(first))
	assert.Equal(t, From(ctx), Of(second))
	assert.Equal(t, From(ctx), TraceOf(second))
	assert.NotEqual(t, first.Get("traceparent"), second.Get("traceparent"), "each is a span of its own")
}

func TestLogger_addsTheIDsOnce(t *testing.T) {
	var text bytes.Buffer
	log := Logger(slog.New(slog.NewTextHandler(&text, nil))).With("ca", "RA")
	ctx := With(t.Context(), "a", trace)
	log.InfoContext(ctx, "with")
	Bind(ctx, log).InfoContext(ctx, "with")
	Bind(With(context.Background(), "b", ""), log).Info("alone")
	log.Info("without")
	Bind(t.Context(), log).Info("without")
	lines := ""
	for line := range strings.Lines(text.String()) {
		_, line, _ = strings.Cut(line, " level=INFO ")
		lines += line
	}
	assert.Equal(t, strings.Repeat("msg=with ca=RA request_id=a trace_id="+trace+"\n", 2)+
		"msg=alone ca=RA request_id=b\nmsg=without ca=RA\nmsg=without ca=RA\n", lines)
}
