package sidecar

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/enroll"
)

// renewer notes what the loop asks for, and when.
type renewer struct {
	mu       sync.Mutex // the loop holds it while it touches what follows; see pass
	life     time.Duration
	takes    time.Duration // each attempt
	err      error         // of Obtain
	refused  error         // of what Obtain returns
	broken   error         // of Restore
	mended   bool          // Restore finds something to put back
	found    *Certificate  // what Restore finds to be published; nil: what was published last
	current  Certificate
	at       []time.Time
	reasons  []string
	restores []time.Time
}

func (r *renewer) Obtain(_ context.Context, reason string) (func() (Certificate, error), error) {
	r.mu.Lock()
	r.at, r.reasons = append(r.at, time.Now()), append(r.reasons, reason)
	takes := r.takes
	r.mu.Unlock()
	time.Sleep(takes)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	return func() (Certificate, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.refused != nil {
			return Certificate{}, r.refused
		}
		now := time.Now()
		r.current = Certificate{NotBefore: now, NotAfter: now.Add(r.life)}
		return r.current, nil
	}, nil
}

func (r *renewer) Restore() (Certificate, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restores = append(r.restores, time.Now())
	if r.found != nil {
		r.current = *r.found
	}
	return r.current, r.mended, r.broken
}

// bench is a loop in a bubble of fake time.
type bench struct {
	*renewer
	loop      *Loop
	requests  chan string
	disturbed chan struct{}
	offset    atomic.Int64 // of the wall clock from that of the timers
	status    Status
	began     time.Time
	log       bytes.Buffer // read it while the loop waits
}

// inBubble runs the loop for a certificate of 10 days that was just obtained, renewed after half its life
// and without jitter.
func inBubble(t *testing.T, r *renewer, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{renewer: r, requests: make(chan string, 1), disturbed: make(chan struct{}, 1), began: time.Now()}
		b.loop = &Loop{
			Policy: Policy{At: 0.5, Seed: "seed"}, Renewer: r, Requests: b.requests, Disturbed: b.disturbed,
			Observe: func(s Status) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.status = s
			},
			Log:   slog.New(slog.NewTextHandler(&b.log, nil)),
			Clock: func() time.Time { return time.Now().Add(time.Duration(b.offset.Load())) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			b.loop.Run(ctx, Certificate{NotBefore: b.began, NotAfter: b.began.Add(10 * day), Obtained: b.began})
			close(ended)
		}()
		r.current = Certificate{NotBefore: b.began, NotAfter: b.began.Add(10 * day)}
		synctest.Wait()
		test(b)
		cancel()
		<-ended
	})
}

// pass lets time go by. While it does not, the loop waits, and the test may look at everything and change it;
// the race detector learns so from the lock.
func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	b.mu.Unlock() //lint:ignore SA2001 as said
	time.Sleep(d) // of the bubble: it takes no time
	synctest.Wait()
}

func TestLoop_renewsWhenDue_againAndAgain(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day}, func(b *bench) {
		due := b.status.Due
		b.pass(time.Until(due) - time.Millisecond)
		assert.Empty(t, b.at)
		b.pass(time.Millisecond)
		require.Len(t, b.at, 1)
		assert.Equal(t, due, b.at[0].UTC().In(due.Location()))
		b.pass(50 * day)
		assert.Len(t, b.at, 11, "every 4.8 days or so")
		assert.Equal(t, "due", b.reasons[10])
		assert.Empty(t, b.restores)
	})
}

func TestLoop_dueAtTheStart_renewsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &renewer{life: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		now := time.Now()
		go (&Loop{Policy: Policy{At: 0.5}, Renewer: r, Log: slog.New(slog.DiscardHandler)}).Run(ctx,
			Certificate{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
		synctest.Wait()
		assert.Equal(t, []time.Time{now}, r.at)
	})
}

// Timers stand still while a machine is suspended; its clock does not.
func TestLoop_clockGoesForward_renewsWithinAMinute(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day}, func(b *bench) {
		b.pass(90 * time.Second)
		b.offset.Store(int64(7 * day))
		b.pass(time.Minute)
		assert.Len(t, b.at, 1)
	})
}

func TestLoop_clockGoesBack_doesNotStretchAWait(t *testing.T) {
	inBubble(t, &renewer{err: errors.New("no")}, func(b *bench) {
		b.pass(b.status.Due.Sub(b.began))
		require.Len(t, b.at, 1)
		b.offset.Store(-int64(3 * day))
		b.pass(2 * time.Minute)
		assert.Greater(t, len(b.at), 1)
	})
}

func TestLoop_failures_areFollowedByTriesUntilOneSucceeds(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day, err: errors.New("no")}, func(b *bench) {
		due := b.status.Due
		b.pass(due.Sub(b.began) + 10*time.Hour)
		tries := len(b.at)
		assert.Equal(t, tries, b.status.Failures)
		assert.Equal(t, due, b.status.Due, "it stays overdue")
		assert.Greater(t, tries, 10*4, "at least every 15 minutes")
		assert.Less(t, tries, 10*4*4)
		for n := 1; n < tries; n++ {
			assert.LessOrEqual(t, b.at[n].Sub(b.at[n-1]), 15*time.Minute)
		}

		b.pass(6 * day) // through the expiry
		expired := len(b.at)
		b.pass(time.Hour)
		assert.Greater(t, len(b.at), expired+59, "at least every minute")

		b.err = nil
		b.pass(time.Minute)
		assert.Zero(t, b.status.Failures)
		assert.True(t, b.status.Next.After(time.Now().Add(4*day)))
	})
}

func TestLoop_hints_areFollowed(t *testing.T) {
	for name, row := range map[string]struct {
		err   error
		least time.Duration
	}{
		"a refusal": {&client.ConnectionError{Permanent: true, Err: errors.New("no")},
			7*time.Minute + 30*time.Second},
		"a Retry-After": {&client.StatusError{StatusCode: 503, RetryAfter: 11 * time.Minute}, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &renewer{err: &enroll.Error{Stage: enroll.StageConnection, Err: row.err}}, func(b *bench) {
				b.pass(b.status.Due.Sub(b.began) + row.least - time.Millisecond)
				assert.Len(t, b.at, 1)
				b.pass(15 * time.Minute)
				assert.Greater(t, len(b.at), 1)
			})
		})
	}
}

func TestLoop_request_renewsAtOnce(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day}, func(b *bench) {
		b.pass(day)
		b.requests <- "SIGHUP"
		synctest.Wait()
		assert.Equal(t, []string{"SIGHUP"}, b.reasons)
		assert.True(t, b.status.Due.After(b.began.Add(5*day)))
		b.pass(4 * day)
		assert.Len(t, b.at, 1, "the schedule counts from the new certificate")
	})
}

func TestLoop_disturbed_restores_andTriesAgainWhenThatFails(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day, broken: errors.New("no space")}, func(b *bench) {
		b.disturbed <- struct{}{}
		synctest.Wait()
		assert.Len(t, b.restores, 1)
		b.pass(3 * time.Minute)
		assert.Greater(t, len(b.restores), 3)
		b.broken = nil
		b.pass(time.Minute)
		restored := len(b.restores)
		b.pass(time.Hour)
		assert.Len(t, b.restores, restored)
		assert.Empty(t, b.at)
	})
}

func TestLoop_clockGoesBack_doesNotStretchTheWaitToRestore(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day, broken: errors.New("no space")}, func(b *bench) {
		b.disturbed <- struct{}{}
		synctest.Wait()
		b.offset.Store(-int64(3 * day))
		b.pass(2 * time.Minute)
		assert.Greater(t, len(b.restores), 1)
	})
}

// A hook that changes a file whenever it is told that files were put back would have it told for ever.
func TestLoop_disturbedByEachRestoration_restoresLessAndLessOften(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day, mended: true}, func(b *bench) {
		disturb := func(times int) (pauses []time.Duration) {
			first := len(b.restores)
			for range times {
				before := len(b.restores)
				b.disturbed <- struct{}{}
				for synctest.Wait(); len(b.restores) == before; {
					b.pass(time.Millisecond)
				}
			}
			for n := first + 1; n < len(b.restores); n++ {
				pauses = append(pauses, b.restores[n].Sub(b.restores[n-1]))
			}
			return pauses
		}
		at := time.Now()
		pauses := disturb(10)
		assert.Equal(t, at, b.restores[0], "the first is immediate")
		second := time.Second
		assert.Equal(t, []time.Duration{second / 2, second, 2 * second, 4 * second, 8 * second,
			16 * second, 32 * second, time.Minute, time.Minute}, pauses)
		const suspicion = "published files change again and again right after they were restored"
		assert.Equal(t, 1, strings.Count(b.log.String(), suspicion))

		b.pass(5*time.Minute + time.Second)
		at = time.Now()
		disturb(1)
		assert.Equal(t, at, b.restores[10], "after some calm it begins again")
		disturb(1)
		assert.Equal(t, second/2, b.restores[11].Sub(b.restores[10]))
	})
}

func TestLoop_disturbedForNothing_looksAtOnce(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day}, func(b *bench) {
		for n := range 5 {
			b.disturbed <- struct{}{}
			synctest.Wait()
			assert.Len(t, b.restores, n+1)
		}
	})
}

func TestLoop_disturbedDuringAnAttempt_restoresMeanwhile(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day, takes: time.Minute}, func(b *bench) {
		b.requests <- "SIGHUP"
		b.pass(time.Second)
		require.Len(t, b.at, 1)
		b.disturbed <- struct{}{}
		synctest.Wait()
		assert.Len(t, b.restores, 1)
		b.requests <- "again"
		b.pass(time.Second)
		assert.Len(t, b.at, 1, "one attempt at a time")
		b.pass(2 * time.Minute)
		assert.Equal(t, []string{"SIGHUP", "again"}, b.reasons)
	})
}

func TestLoop_newerCertificateOfSomebodyElse_makesTheAttemptUnderWayNeedless(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day, takes: time.Minute, mended: true, err: errors.New("busy")}, func(b *bench) {
		b.pass(time.Until(b.status.Due) + time.Second)
		require.Equal(t, []string{"due"}, b.reasons)
		now := time.Now()
		b.mu.Lock()
		b.found = &Certificate{NotBefore: now, NotAfter: now.Add(20 * day)}
		b.mu.Unlock()
		b.disturbed <- struct{}{}
		b.pass(time.Hour)
		assert.Len(t, b.at, 1, "what failed is not due any more")
		assert.Zero(t, b.status.Failures)
		assert.WithinRange(t, b.status.Next, now.Add(9*day), now.Add(10*day))
	})
}

func TestLoop_certificateThatCannotBePublished_isAFailedAttempt(t *testing.T) {
	inBubble(t, &renewer{life: 10 * day, refused: &enroll.Error{Stage: enroll.StageFile, Err: errors.New("no space")}},
		func(b *bench) {
			b.requests <- "SIGHUP"
			synctest.Wait()
			assert.Equal(t, 1, b.status.Failures)
			assert.Contains(t, b.log.String(),
				`msg="renewing failed, the certificate stays in use; trying again" error="no space" stage=file try=1`)
		})
}

func TestLoop_certificatesThatAreOverdueWhenTheyCome_arePaused(t *testing.T) {
	inBubble(t, &renewer{life: 0}, func(b *bench) {
		b.requests <- "SIGHUP"
		b.pass(time.Second)
		assert.LessOrEqual(t, len(b.at), 21)
	})
}

func TestLoop_endsDuringAnAttempt_withoutCountingIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		observed := 0
		loop := &Loop{
			Policy: Policy{At: 0.5}, Log: slog.New(slog.DiscardHandler), Observe: func(Status) { observed++ },
			Renewer: interrupted{cancel},
		}
		loop.Run(ctx, Certificate{NotBefore: time.Now(), NotAfter: time.Now()})
		assert.Equal(t, 1, observed)
	})
}

// interrupted is a renewer that a signal meets.
type interrupted struct{ cancel func() }

func (i interrupted) Obtain(ctx context.Context, _ string) (func() (Certificate, error), error) {
	i.cancel()
	return nil, ctx.Err()
}

func (interrupted) Restore() (Certificate, bool, error) { return Certificate{}, false, nil }

// What was obtained is published, and the volume left at rest, before the loop ends.
func TestLoop_endsDuringAnAttempt_whichIsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &renewer{life: time.Hour, takes: time.Second}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			(&Loop{Policy: Policy{At: 0.5}, Renewer: r, Log: slog.New(slog.DiscardHandler)}).Run(ctx, Certificate{})
			close(ended)
		}()
		synctest.Wait()
		cancel()
		<-ended
		assert.NotZero(t, r.current)
	})
}
