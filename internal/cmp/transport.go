package cmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// MediaType is the content type of CMP messages in HTTP (RFC 9811, 3.2).
const MediaType = "application/pkixcmp"

// maxRetryAfter bounds what a server can ask for.
const maxRetryAfter = 24 * time.Hour

// transport carries one CMP message each way over HTTP (RFC 9811, 3).
type transport struct {
	client  http.Client
	url     string
	shown   string        // the URL without a password
	timeout time.Duration // for one message and its answer
	limit   int           // bytes of an answer
	now     func() time.Time
}

func newTransport(cfg Config) (*transport, error) {
	target, err := url.Parse(cfg.URL)
	if err != nil {
		// The parser's error repeats the text, which may hold a password.
		return nil, errors.New("URL of the CMP server cannot be parsed")
	}
	if (target.Scheme != "http" && target.Scheme != "https") || target.Host == "" {
		return nil, fmt.Errorf("URL of the CMP server %q: want http:// or https:// and a host", target.Redacted())
	}
	t := &transport{url: target.String(), shown: target.Redacted(),
		timeout: cfg.MessageTimeout, limit: cfg.MaxResponseSize, now: cfg.Now}
	if cfg.HTTPClient != nil {
		t.client = *cfg.HTTPClient
	}
	// A redirect would carry the request to a server that nobody configured.
	t.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return t, nil
}

// post sends a message and returns the body of the answer with its HTTP status. A CMP message may come
// with an error status as well (RFC 9811, 3.1); any other body than a CMP message is a *TransportError.
func (t *transport) post(ctx context.Context, message []byte, answers *answers) ([]byte, int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, &limitError{t.timeout})
	defer cancel()
	response, err := t.send(ctx, message)
	if err != nil {
		return nil, 0, interrupted(ctx, 0, err)
	}
	defer response.Body.Close()
	failed := &TransportError{StatusCode: response.StatusCode, URL: t.shown}
	if failed.Err = checkHTTPHead(response); failed.Err != nil {
		failed.RetryAfter = t.retryAfter(response.Header.Get("Retry-After"))
		return nil, 0, failed
	}
	body, err := io.ReadAll(io.LimitReader(answers.reader(response.Body), int64(t.limit)+1))
	if err != nil {
		return nil, 0, interrupted(ctx, response.StatusCode, fmt.Errorf("reading answer: %w", err))
	}
	if len(body) > t.limit {
		failed.Err = fmt.Errorf("answer is larger than %d bytes", t.limit)
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

// interrupted explains an exchange that broke off. The time for the message is named; a deadline of the caller's is
// not, since only the caller knows what it is called.
func interrupted(ctx context.Context, status int, err error) *TransportError {
	e := &TransportError{StatusCode: status, Timeout: isTimeout(err), Err: err}
	var passed *limitError
	if errors.As(context.Cause(ctx), &passed) {
		e.Limit, e.Err = passed.limit, passed
	}
	return e
}

// checkHTTPHead decides by status and header fields whether the body is a CMP message (RFC 9811, 3.1 and 3.2).
func checkHTTPHead(response *http.Response) error {
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		return errors.New("redirected, which is not followed: the configured URL must be the CMP server's own")
	}
	mediaType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if mediaType != MediaType || (err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter)) {
		err := fmt.Errorf("answer is no CMP message: has media type %.100q, want %q",
			response.Header.Get("Content-Type"), MediaType)
		if encoded(response) {
			return err
		}
		return withWords(err, response.Body)
	}
	if encoded(response) {
		return fmt.Errorf("answer has content encoding %.100q, want none", response.Header.Get("Content-Encoding"))
	}
	return nil
}

func encoded(response *http.Response) bool {
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
