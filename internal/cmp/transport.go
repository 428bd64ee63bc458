package cmp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// MediaType is the content type of CMP messages in HTTP (RFC 9811, 3.2).
const MediaType = "application/pkixcmp"

// IsMediaType tells of a Content-Type header whether it is MediaType, with whatever parameters.
func IsMediaType(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return mediaType == MediaType && (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter))
}

// OperationLabels are the path segments that RFC 9483, 6.1 has for kinds of messages. Any of them
// takes every kind: they say nothing that the message does not say.
var OperationLabels = []string{"initialization", "certification", "keyupdate", "pkcs10", "revocation", "getcacerts",
	"getrootupdate", "getcertreqtemplate", "getcrls", "nested"}

// maxRetryAfter bounds what a server can ask for.
const maxRetryAfter = 24 * time.Hour

// transport carries one CMP message each way over HTTP (RFC 9811, 3).
type transport struct {
	client  http.Client
	empty   *http.Request // each request, but for its context and message
	shown   string        // the URL without user, password and query
	timeout time.Duration // for one message and its answer
	now     func() time.Time
}

func newTransport(cfg Config) (*transport, error) {
	target, err := url.Parse(cfg.URL)
	if err != nil {
		// The parser's error repeats the text, which may hold a password.
		return nil, errors.New("URL of the CMP server cannot be parsed")
	}
	if (target.Scheme != "http" && target.Scheme != "https") || target.Host == "" {
		return nil, fmt.Errorf("URL of the CMP server %q: want http:// or https:// and a host",
			pki.ShowURL(target))
	}
	empty, err := http.NewRequest(http.MethodPost, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("URL of the CMP server %q cannot be asked for", pki.ShowURL(target))
	}
	empty.Header.Set("Content-Type", MediaType)
	empty.Header.Set("Accept", MediaType)
	empty.Header.Set("Cache-Control", "no-cache")
	// Set explicitly, so that net/http does not decompress:
	// a small answer cannot become a large one.
	empty.Header.Set("Accept-Encoding", "identity")
	t := &transport{empty: empty, shown: pki.ShowURL(target), timeout: cfg.MessageTimeout, now: cfg.Now}
	if cfg.HTTPClient != nil {
		t.client = *cfg.HTTPClient
	}
	// A redirect would carry the request to a server that is not configured.
	t.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return t, nil
}

// post sends a message and returns the body of the answer with its
// HTTP status. A CMP message may come with an error status too (RFC
// 9811, 3.1); any other body than a CMP message is a *TransportError.
func (t *transport) post(ctx context.Context, message []byte, answers *answers) ([]byte, int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, &limitError{t.timeout})
	defer cancel()
	response, unsent, err := t.send(ctx, message)
	if err != nil {
		e := explainInterruption(ctx, 0, err)
		e.Unsent = unsent
		return nil, 0, e
	}
	defer response.Body.Close()
	failed := &TransportError{StatusCode: response.StatusCode, URL: t.shown}
	if failed.Err = checkHTTPHead(response); failed.Err != nil {
		failed.RetryAfter = t.retryAfter(response.Header.Get("Retry-After"))
		return nil, 0, failed
	}
	body, err := io.ReadAll(io.LimitReader(answers.reader(response.Body), MaxMessageSize+1))
	if err != nil {
		return nil, 0, explainInterruption(ctx, response.StatusCode, fmt.Errorf("reading answer: %w", err))
	}
	if len(body) > MaxMessageSize {
		failed.Err = fmt.Errorf("answer is larger than %d bytes", MaxMessageSize)
		return nil, 0, failed
	}
	if len(body) == 0 {
		failed.Err = errors.New("answer is empty")
		return nil, 0, failed
	}
	return body, response.StatusCode, nil
}

// limitError is the end of the time that one message and its answer have.
type limitError struct{ limit time.Duration }

func (e *limitError) Error() string { return fmt.Sprintf("no answer within %s", e.limit) }
func (e *limitError) Unwrap() error { return context.DeadlineExceeded }

// explainInterruption explains an exchange that broke off. The time for the message is named; a
// deadline of the caller's is not, since only the caller knows what it is called.
func explainInterruption(ctx context.Context, status int, err error) *TransportError {
	e := &TransportError{StatusCode: status, Timeout: isTimeout(err), Err: err}
	if passed, ok := errors.AsType[*limitError](context.Cause(ctx)); ok {
		e.Limit, e.Err = passed.limit, passed
	}
	return e
}

// checkHTTPHead decides by status and header fields whether
// the body is a CMP message (RFC 9811, 3.1 and 3.2).
func checkHTTPHead(response *http.Response) error {
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		return errors.New("redirected, which is not followed: the configured URL must be the CMP server's own")
	}
	if !IsMediaType(response.Header.Get("Content-Type")) {
		err := fmt.Errorf("answer is not a CMP message: has media type %.100q, want %q",
			response.Header.Get("Content-Type"), MediaType)
		if isEncoded(response) {
			return err
		}
		return withWords(err, response.Body)
	}
	if isEncoded(response) {
		return fmt.Errorf("answer has content encoding %.100q, want none", response.Header.Get("Content-Encoding"))
	}
	return nil
}

func isEncoded(response *http.Response) bool {
	encoding := response.Header.Get("Content-Encoding")
	return encoding != "" && encoding != "identity"
}

// retryAfter reads Retry-After, in seconds or as a date (RFC 9110, 10.2.3).
func (t *transport) retryAfter(value string) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(t.now())
	}
	return min(max(wait, 0), maxRetryAfter)
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout())
}

// send sends a message, and once more on a new connection when a reused one brought not a single
// byte: the server had closed it since its last answer, as some do at once. The message is the
// same, with its transactionID and nonce, so that a server that did read the first one can tell.
//
// unsent says that the server got nothing of the message, or that it says to have passed nothing on.
func (t *transport) send(ctx context.Context, message []byte) (response *http.Response, unsent bool, err error) {
	response, stale, unsent, err := t.try(ctx, message)
	if err != nil && stale && ctx.Err() == nil && !isTimeout(err) {
		t.client.CloseIdleConnections() // which the server may have closed as well
		first := unsent
		response, _, unsent, err = t.try(ctx, message)
		unsent = unsent && first
	}
	return response, unsent, err
}

// try sends a message once. stale says that the connection was used before and that nothing came.
func (t *transport) try(ctx context.Context, message []byte) (response *http.Response, stale, unsent bool, err error) {
	var reused, answered, connected atomic.Bool // the hooks may run on other goroutines
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connected.Store(true)
			reused.Store(info.Reused)
		},
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	response, err = t.client.Do(t.request(ctx, message))
	if failed, ok := errors.AsType[*url.Error](err); ok {
		failed.URL = t.shown // net/http leaves out a password only
	}
	var refused interface{ Unsent() bool }
	unsent = !connected.Load() || errors.As(err, &refused) && refused.Unsent()
	return response, reused.Load() && !answered.Load(), unsent, err
}

// request is one with a message, as http.NewRequest makes it. URL and header are shared by all.
func (t *transport) request(ctx context.Context, message []byte) *http.Request {
	r := t.empty.WithContext(ctx)
	r.ContentLength = int64(len(message))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(message)), nil }
	r.Body, _ = r.GetBody()
	return r
}

// Bounds of what is read and shown of an answer that is not a CMP message.
const (
	maxWordsRead  = 16 << 10
	maxWordsShown = 300
)

// withWords adds the text of an answer that is not a CMP
// message to an error: an error page often has the reason.
func withWords(err error, body io.Reader) error {
	text, _ := io.ReadAll(io.LimitReader(body, maxWordsRead)) // as much as there is
	if words := plainText(string(text)); words != "" {
		return fmt.Errorf("%w; it says %q", err, words)
	}
	return err
}

// entities are those that pages of errors have. Package html knows two thousand more, and would be a
// hundredth of certfetcher.
var entities = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&quot;", `"`, "&#34;", `"`, "&apos;", "'", "&#39;", "'",
	"&#x27;", "'", "&nbsp;", " ", "&amp;", "&")

// plainText returns what a reader of a page sees, on one
// line. Of a page without a body that is its title.
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
	return pki.OneLine(entities.Replace(text.String()), maxWordsShown)
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

const (
	// freeAnswer is what an answer takes without being
	// counted, in bytes. Ordinary ones are smaller.
	freeAnswer = 64 << 10
	// answerStep is what is counted at a time.
	answerStep = 64 << 10
	// DefaultAnswerBytes is what the large answers of one
	// server may have in memory at the same time, in bytes.
	DefaultAnswerBytes = 4 << 20
)

// Answers bounds the memory that large answers take at the same time,
// so that a server cannot fill it by sending to many transactions as
// much as each may have. It may be shared by the clients of one server.
type Answers struct{ left atomic.Int64 }

// NewAnswers returns a bound in bytes. It has to be larger
// than MaxMessageSize, so that one such answer fits.
func NewAnswers(bytes int64) *Answers {
	a := &Answers{}
	a.left.Store(bytes)
	return a
}

func (a *Answers) take(n int64) bool {
	if a.left.Add(-n) < 0 {
		a.left.Add(n)
		return false
	}
	return true
}

// answers is one transaction's part of the bound. It is given back when the transaction ends, as
// parts of the answers are in use until then.
type answers struct {
	of    *Answers
	taken int64
}

func (a *answers) giveBack() {
	a.of.left.Add(a.taken)
	a.taken = 0
}

// reader counts what is read of one answer.
func (a *answers) reader(body io.Reader) io.Reader {
	return &answerReader{answers: a, body: body, may: freeAnswer}
}

type answerReader struct {
	answers *answers
	body    io.Reader
	may     int64 // be read before more is counted
}

func (r *answerReader) Read(p []byte) (int, error) {
	if r.may <= 0 {
		if !r.answers.of.take(answerStep) {
			return 0, fmt.Errorf(
				"answer is larger than %d bytes, and other large answers of this server are under way", freeAnswer)
		}
		r.answers.taken += answerStep
		r.may += answerStep
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.may)])
	r.may -= int64(n)
	return n, err
}
