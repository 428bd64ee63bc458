package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retry is when to try again after a failure that may pass: exponentially growing waits, each drawn from
// half to one and a half of its interval, which doubles.
type Retry struct {
	InitialInterval time.Duration // of the first wait
	MaxInterval     time.Duration // the longest wait, jitter included; a Retry-After may be longer
	MaxElapsed      time.Duration // no try begins later than this after the first; zero: for ever
}

// MaxRetryAfter is the longest wait of a Client that a server's Retry-After can ask for.
const MaxRetryAfter = 15 * time.Minute

// maxReported bounds the Retry-After that a StatusError reports to those who wait by themselves: what is longer
// than a day is more likely a mistake.
const maxReported = 24 * time.Hour

// jitter is the share of an interval by which a wait may differ from it.
const jitter = 0.5

// schedule draws the waits of one call.
type schedule struct {
	*backoff.ExponentialBackOff
	retryAfter time.Duration // what the last answer asked for
	stopped    bool          // by MaxElapsed
}

func newSchedule(r Retry, now func() time.Time) *schedule {
	longest := time.Duration(float64(r.MaxInterval) / (1 + jitter))
	return &schedule{ExponentialBackOff: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(r.InitialInterval, longest)),
		backoff.WithMaxInterval(longest),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(jitter),
		backoff.WithMaxElapsedTime(r.MaxElapsed),
		backoff.WithClockProvider(clock(now)),
	)}
}

// NextBackOff returns the next wait, or backoff.Stop when it would end past MaxElapsed. A server that asks
// for more time than is left gets no further request: an earlier one would disobey it.
func (s *schedule) NextBackOff() time.Duration {
	next := s.ExponentialBackOff.NextBackOff()
	if next != backoff.Stop && s.retryAfter > 0 {
		// A little later than asked, so that the clients of a server that restarts do not all come at once.
		asked := s.retryAfter + rand.N(s.retryAfter/10+1)
		next = max(next, min(asked, MaxRetryAfter))
		if s.MaxElapsedTime > 0 && s.GetElapsedTime()+next > s.MaxElapsedTime {
			next = backoff.Stop
		}
	}
	s.stopped = next == backoff.Stop
	return next
}

type clock func() time.Time

func (c clock) Now() time.Time { return c() }

// do makes the request as often as the configuration allows.
func (c *Client) do(ctx context.Context, operation string, target *url.URL, secrets secretHeaders) (Answer, error) {
	if err := context.Cause(ctx); err != nil {
		return Answer{}, err
	}
	if proxy, err := c.proxy(&http.Request{URL: target}); err == nil && proxy != nil {
		// The ONAP client used none, so an operator who migrates may not know that one applies.
		c.log.LogAttrs(ctx, slog.LevelInfo,
			"the request goes through the proxy of HTTPS_PROXY, as NO_PROXY does not name the host",
			slog.String("proxy", proxy.Scheme+"://"+proxy.Host), slog.String("host", target.Host))
	}
	if c.retry == nil {
		answer, err := c.try(ctx, target, secrets)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return answer, err
	}
	s := newSchedule(*c.retry, c.now)
	tries := 0
	var last error
	answer, err := backoff.RetryNotifyWithData(func() (Answer, error) {
		tries++
		answer, err := c.try(ctx, target, secrets)
		if err == nil {
			return answer, nil
		}
		last = err
		var status *StatusError
		s.retryAfter = 0
		if errors.As(err, &status) {
			s.retryAfter = status.RetryAfter
		}
		if !mayPass(err) {
			return Answer{}, backoff.Permanent(err)
		}
		return Answer{}, err
	}, backoff.WithContext(s, ctx), func(err error, wait time.Duration) {
		c.log.LogAttrs(ctx, slog.LevelWarn, "CertService request failed, trying again",
			slog.String("operation", operation),
			slog.Int("try", tries), slog.String("error", err.Error()), slog.Duration("next_in", wait))
	})
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		cause := context.Cause(ctx)
		if last == nil || errors.Is(last, cause) {
			return Answer{}, cause
		}
		return Answer{}, fmt.Errorf("%w; before that, try %d failed: %v", cause, tries, last)
	case s.stopped:
		effort := fmt.Sprintf("%d tries in %s", tries, s.GetElapsedTime().Round(time.Millisecond))
		if tries == 1 {
			effort = "one try"
		}
		if s.retryAfter > 0 {
			return Answer{}, fmt.Errorf("giving up after %s, as the server asks to wait another %s: %w", effort,
				s.retryAfter, err)
		}
		return Answer{}, fmt.Errorf("giving up after %s: %w", effort, err)
	}
	return Answer{}, err
}

// parseRetryAfter reads a Retry-After header (RFC 9110, section 10.2.3: seconds or an HTTP date). It returns
// zero for what is neither or lies in the past, and at most maxReported.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxReported/time.Second) {
			return maxReported
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxReported)
}
