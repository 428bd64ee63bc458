package cmp

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// send sends a message, and once more on a new connection when one that was used before brought not a single byte:
// the server had closed it since its last answer, as some do at once. The message is the same, with its transactionID
// and nonce, so that a server that did read the first one can tell.
func (t *transport) send(ctx context.Context, message []byte) (*http.Response, error) {
	response, stale, err := t.try(ctx, message)
	if err != nil && stale && ctx.Err() == nil && !isTimeout(err) {
		t.client.CloseIdleConnections() // which the server may have closed as well
		response, _, err = t.try(ctx, message)
	}
	return response, err
}

// try sends a message once. stale says that the connection was used before and that nothing came.
func (t *transport) try(ctx context.Context, message []byte) (response *http.Response, stale bool, err error) {
	var reused, answered atomic.Bool // the hooks may run on other goroutines
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(info httptrace.GotConnInfo) { reused.Store(info.Reused) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(message))
	if err != nil {
		return nil, false, err
	}
	request.Header.Set("Content-Type", MediaType)
	request.Header.Set("Accept", MediaType)
	request.Header.Set("Cache-Control", "no-cache")
	// Said explicitly, so that net/http unpacks nothing: a small answer cannot become a large one.
	request.Header.Set("Accept-Encoding", "identity")
	response, err = t.client.Do(request)
	return response, reused.Load() && !answered.Load(), err
}

// Bounds of what is read and shown of an answer that is no CMP message.
const (
	maxWordsRead  = 16 << 10
	maxWordsShown = 300
)

// withWords adds to an error what an answer says that is no CMP message: an error page often has the reason.
func withWords(err error, body io.Reader) error {
	text, _ := io.ReadAll(io.LimitReader(body, maxWordsRead)) // as much as there is
	if words := plainText(string(text)); words != "" {
		return fmt.Errorf("%w; it says %q", err, words)
	}
	return err
}

// plainText returns what a reader of a page sees, on one line. Of a page without a body that is its title.
func plainText(page string) string {
	lower := strings.ToLower(page) // as long as page only where that is ASCII, which tags are
	if body := strings.Index(lower, "<body"); body >= 0 && len(lower) == len(page) {
		page = page[body:]
	}
	var text strings.Builder
	for page != "" {
		before, tag, found := strings.Cut(page, "<")
		text.WriteString(before)
		text.WriteByte(' ')
		if !found {
			break
		}
		_, page, _ = strings.Cut(tag, closing(tag))
	}
	return pki.OneLine(html.UnescapeString(text.String()), maxWordsShown)
}

// closing returns what ends a tag, or an element whose content is not shown.
func closing(tag string) string {
	name := strings.ToLower(tag[:min(len(tag), len("script"))])
	for prefix, end := range map[string]string{"!--": "-->", "script": "</script>", "style": "</style>"} {
		if strings.HasPrefix(name, prefix) {
			return end
		}
	}
	return ">"
}
