// Package requestid names requests, so that the lines that several programs log about one can be
// found: by the header X-Request-Id, which gateways know as well, and by W3C's traceparent.
//
// An id is for finding lines and nothing else. What others send is taken only where it can break
// neither a line nor a header.
package requestid

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
)

// Header is the header of requests and answers that has the id.
const Header = "X-Request-Id"

// HeaderTrace is the header of W3C's Trace Context, of requests only.
const HeaderTrace = "Traceparent"

// The keys of log lines.
const (
	LogKey      = "request_id"
	LogKeyTrace = "trace_id"
)

// New returns an id at random: 32 hexadecimal digits, which are a trace id as well.
func New() string { return random(16) }

func random(bytes int) string {
	id := make([]byte, bytes)
	_, _ = rand.Read(id) // it never fails
	return hex.EncodeToString(id)
}

// maxLength is more than a UUID and what common gateways make.
const maxLength = 64

// IsValid tells of an id that somebody else made whether it is 1 to 64 letters, digits and -._ of
// ASCII, as UUIDs and hexadecimal numbers are.
func IsValid(id string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"
	return id != "" && len(id) <= maxLength && strings.Trim(id, alphabet) == ""
}

// Of returns the id in the headers of a request or an answer; empty: there is none, or it is not
// valid, or there are several.
func Of(header http.Header) string {
	if values := header.Values(Header); len(values) == 1 && IsValid(values[0]) {
		return values[0]
	}
	return ""
}

// TraceOf returns the trace id in the headers of a request (https://www.w3.org/TR/trace-context/,
// 3.2.2), in lower case; empty: there is none, or it is not valid.
func TraceOf(header http.Header) string {
	values := header.Values(HeaderTrace)
	if len(values) != 1 {
		return ""
	}
	// Version, trace id, parent id and flags; later versions may have more.
	parts := strings.SplitN(values[0], "-", 5)
	if len(parts) < 4 || !isHex(parts[0], 2) || parts[0] == "ff" || !isHex(parts[1], 32) || !isHex(parts[2], 16) ||
		!isHex(parts[3], 2) || parts[0] == "00" && len(parts) > 4 ||
		strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == "" {
		return ""
	}
	return parts[1]
}

func isHex(text string, length int) bool {
	return len(text) == length && strings.Trim(text, "0123456789abcdef") == ""
}

type key struct{}

// value is what a context has.
type value struct{ id, trace string }

// With returns a context for what is done about a request. trace may be empty.
func With(ctx context.Context, id, trace string) context.Context {
	return context.WithValue(ctx, key{}, value{id, trace})
}

// From returns the id of a context; empty: there is none.
func From(ctx context.Context) string {
	v, _ := ctx.Value(key{}).(value)
	return v.id
}

// Set sets the headers of a request for the id of its context, which New made. Each request is a
// span of its own in that trace, which nobody has to record.
func Set(ctx context.Context, header http.Header) {
	if id := From(ctx); id != "" {
		header.Set(Header, id)
		header.Set(HeaderTrace, "00-"+id+"-"+random(8)+"-00")
	}
}

// Logger returns a logger that adds the ids of the context to the end of each line.
func Logger(log *slog.Logger) *slog.Logger { return slog.New(handler{log.Handler(), nil}) }

// Bind returns a logger that adds the ids of this context to the end of each line.
func Bind(ctx context.Context, log *slog.Logger) *slog.Logger {
	v, ok := ctx.Value(key{}).(value)
	if !ok {
		return log
	}
	inner := log.Handler()
	if h, adds := inner.(handler); adds {
		inner = h.Handler
	}
	return slog.New(handler{inner, &v})
}

// handler adds at the end: what a line is about comes first.
type handler struct {
	slog.Handler
	bound *value // nil: the context of each line has them
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	v, ok := ctx.Value(key{}).(value)
	if h.bound != nil {
		v, ok = *h.bound, true
	}
	if ok {
		r.AddAttrs(slog.String(LogKey, v.id))
	}
	if v.trace != "" {
		r.AddAttrs(slog.String(LogKeyTrace, v.trace))
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.bound}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.bound}
}
