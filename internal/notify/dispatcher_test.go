package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fake is a Notifier that takes a time, then fails as often as told, and writes all into a journal.
type fake struct {
	kind     string
	takes    time.Duration
	failures int
	journal  *journal
}

func (f *fake) Kind() string { return f.kind }

func (f *fake) Notify(ctx context.Context, event Event) error {
	f.journal.add("%s %s begins", f.kind, event.Serial)
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		f.journal.add("%s %s is cut off", f.kind, event.Serial)
		return ctx.Err()
	}
	if f.failures > 0 {
		f.failures--
		f.journal.add("%s %s fails", f.kind, event.Serial)
		return errors.New("no luck")
	}
	f.journal.add("%s %s succeeds", f.kind, event.Serial)
	return nil
}

type journal struct {
	mu       sync.Mutex
	entries  []string
	outcomes []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, fmt.Sprintf(format, args...))
}

// take returns what happened since it was last called.
func (j *journal) take() (entries, outcomes []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries, outcomes = j.entries, j.outcomes
	j.entries, j.outcomes = nil, nil
	return entries, outcomes
}

func (j *journal) observe(kind string, outcome Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.outcomes = append(j.outcomes, kind+" "+string(outcome))
}

// runDispatcher runs one in the bubble until the test ends.
func runDispatcher(t *testing.T, j *journal, log lines, verify Notifier, notifiers ...Notifier) *Dispatcher {
	t.Helper()
	d := NewDispatcher(Config{Notifiers: notifiers, Verify: verify, Observe: j.observe, Log: log.logger()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return d
}

func TestDispatcher_runs_all_in_order_and_verifies_last(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		d := runDispatcher(t, j, log, &fake{kind: KindVerify, journal: j}, &fake{kind: KindExec, takes: time.Minute, journal: j}, &fake{kind: KindURL, journal: j})
		d.Dispatch(Event{Reason: "renewed", Serial: "01"})
		time.Sleep(time.Hour)
		entries, outcomes := j.take()
		assert.Equal(t, []string{"exec 01 begins", "exec 01 succeeds", "url 01 begins", "url 01 succeeds", "verify 01 begins", "verify 01 succeeds"}, entries)
		assert.Equal(t, []string{"exec success", "url success", "verify success"}, outcomes)
		assert.Equal(t, []string{
			`level=INFO msg="told the application" kind=exec reason=renewed serial=01 try=1`,
			`level=INFO msg="told the application" kind=url reason=renewed serial=01 try=1`,
			`level=INFO msg="the application serves the new certificate" kind=verify reason=renewed serial=01 try=1`,
		}, log.all())
	})
}

func TestDispatcher_prepares_first_and_is_told_before_it_verifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		d := NewDispatcher(Config{
			Prepare:   &fake{kind: "postprocess", journal: j, failures: 1},
			Notifiers: []Notifier{&fake{kind: KindExec, journal: j, failures: 1}, &fake{kind: KindURL, journal: j}},
			Verify:    &fake{kind: KindVerify, journal: j, takes: time.Millisecond, failures: 1},
			Log:       log.logger(),
		})
		go d.Run(t.Context())
		d.Dispatch(Event{Serial: "01", Told: func() { j.add("all are told") }})
		time.Sleep(time.Minute)
		entries, _ := j.take()
		assert.Equal(t, []string{
			"postprocess 01 begins", "postprocess 01 fails", "exec 01 begins", "exec 01 fails", "url 01 begins", "url 01 succeeds", "verify 01 begins", "verify 01 fails",
			"postprocess 01 begins", "postprocess 01 succeeds", "exec 01 begins", "exec 01 succeeds", "all are told", "verify 01 begins", "verify 01 succeeds",
		}, entries)
		lines := log.all()
		assert.Contains(t, lines[0], `msg="preparing what the application reads failed" kind=postprocess`)
		assert.Contains(t, lines[4], `msg="prepared what the application reads" kind=postprocess`)
	})
}

func TestDispatcher_certificate_that_was_kept_is_told_nobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		d := NewDispatcher(Config{
			Prepare: &fake{kind: "postprocess", journal: j}, Notifiers: []Notifier{&fake{kind: KindExec, journal: j}},
			Verify: &fake{kind: KindVerify, journal: j}, Log: newLines().logger(),
		})
		go d.Run(t.Context())
		d.Dispatch(Event{Serial: "01", Kept: true})
		time.Sleep(time.Minute)
		entries, _ := j.take()
		assert.Equal(t, []string{"postprocess 01 begins", "postprocess 01 succeeds", "verify 01 begins", "verify 01 succeeds"}, entries)
	})
}

func TestDispatcher_last_to_be_told_fails_for_a_while(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		d := runDispatcher(t, j, newLines(), nil, &fake{kind: KindExec, journal: j}, &fake{kind: KindURL, journal: j, failures: 2})
		d.Dispatch(Event{Serial: "01", Told: func() { j.add("all are told") }})
		time.Sleep(time.Minute)
		entries, _ := j.take()
		assert.Equal(t, []string{"exec 01 begins", "exec 01 succeeds", "url 01 begins", "url 01 fails", "url 01 begins", "url 01 fails", "url 01 begins", "url 01 succeeds", "all are told"}, entries)
	})
}

func TestConfig_Tells(t *testing.T) {
	notifier := &fake{}
	assert.False(t, Config{Verify: notifier}.Tells())
	assert.True(t, Config{Prepare: notifier}.Tells())
	assert.True(t, Config{Notifiers: []Notifier{notifier}}.Tells())
	all := Config{Prepare: notifier, Notifiers: []Notifier{&fake{kind: KindURL}}, Verify: &fake{kind: KindVerify}}
	assert.Equal(t, []string{notifier.Kind(), KindURL, KindVerify}, all.Kinds())
}

func TestDispatcher_retries_only_what_failed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		d := runDispatcher(t, j, log, &fake{kind: KindVerify, journal: j, failures: 1}, &fake{kind: KindExec, failures: 2, journal: j}, &fake{kind: KindSignal, journal: j})
		d.Dispatch(Event{Serial: "01"})
		time.Sleep(time.Hour)
		_, outcomes := j.take()
		assert.Equal(t, []string{
			"exec failure", "signal success", "verify failure",
			"exec failure", "verify success",
			"exec success",
		}, outcomes)
		first := log.all()[0]
		assert.Regexp(t, `^level=ERROR msg="telling the application failed" kind=exec reason="" serial=01 try=1 error="no luck" retry_in=\d+(\.\d+)?m?s$`, first)
	})
}

func TestDispatcher_waits_longer_with_each_failure_and_never_gives_up(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		d := runDispatcher(t, j, log, nil, &fake{kind: KindURL, failures: 1 << 30, journal: j})
		d.Dispatch(Event{Serial: "01"})
		// The jitter is half of each wait, up or down.
		time.Sleep(499 * time.Millisecond)
		_, outcomes := j.take()
		assert.Len(t, outcomes, 1, "no retry before half a second")
		time.Sleep(10 * time.Minute)
		j.take()
		time.Sleep(24 * time.Hour)
		_, outcomes = j.take()
		assert.GreaterOrEqual(t, len(outcomes), 24*60*60/450)
		assert.LessOrEqual(t, len(outcomes), 24*60*60/150+1)
		log.all()
	})
}

func TestDispatcher_Dispatch_does_not_wait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		d := runDispatcher(t, j, newLines(), nil, &fake{kind: KindExec, takes: time.Hour, journal: j})
		begin := time.Now()
		for i := range 100 {
			d.Dispatch(Event{Serial: fmt.Sprintf("%02X", i)})
			synctest.Wait()
		}
		assert.Zero(t, time.Since(begin))
		time.Sleep(3 * time.Hour)
		entries, _ := j.take()
		assert.Equal(t, []string{"exec 00 begins", "exec 00 succeeds", "exec 63 begins", "exec 63 succeeds"}, entries,
			"the one under way is let finish, and of the others only the newest matters")
	})
}

func TestDispatcher_gives_up_the_retry_of_an_older_event(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		exec := &fake{kind: KindExec, failures: 1, journal: j}
		d := runDispatcher(t, j, log, nil, exec, &fake{kind: KindURL, journal: j})
		d.Dispatch(Event{Serial: "01"})
		synctest.Wait()
		d.Dispatch(Event{Serial: "02"})
		synctest.Wait()
		entries, _ := j.take()
		assert.Equal(t, []string{
			"exec 01 begins", "exec 01 fails", "url 01 begins", "url 01 succeeds",
			"exec 02 begins", "exec 02 succeeds", "url 02 begins", "url 02 succeeds",
		}, entries)
		assert.Contains(t, log.all(), `level=INFO msg="telling the application of a newer certificate instead" serial=01 newer_serial=02`)
		time.Sleep(time.Hour)
		entries, _ = j.take()
		assert.Empty(t, entries, "the older event must not be retried")
	})
}

func TestDispatcher_reports_a_failure_that_a_newer_event_overtook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		d := runDispatcher(t, j, log, nil, &fake{kind: KindExec, takes: time.Minute, failures: 1, journal: j})
		d.Dispatch(Event{Serial: "01"})
		synctest.Wait()
		d.Dispatch(Event{Serial: "02"})
		time.Sleep(time.Hour)
		_, outcomes := j.take()
		assert.Equal(t, []string{"exec failure", "exec success"}, outcomes)
		assert.Equal(t, `level=ERROR msg="telling the application failed" kind=exec reason="" serial=01 try=1 error="no luck"`, log.all()[0])
	})
}

func TestDispatcher_cuts_a_verification_off_for_a_newer_event(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		d := runDispatcher(t, j, newLines(), &fake{kind: KindVerify, takes: time.Minute, journal: j}, &fake{kind: KindSignal, journal: j})
		d.Dispatch(Event{Serial: "01"})
		synctest.Wait()
		d.Dispatch(Event{Serial: "02"})
		time.Sleep(time.Hour)
		entries, outcomes := j.take()
		assert.Equal(t, []string{
			"signal 01 begins", "signal 01 succeeds", "verify 01 begins", "verify 01 is cut off",
			"signal 02 begins", "signal 02 succeeds", "verify 02 begins", "verify 02 succeeds",
		}, entries)
		assert.Equal(t, []string{"signal success", "signal success", "verify success"}, outcomes)
	})
}

func TestDispatcher_Run_ends_with_its_context(t *testing.T) {
	for _, row := range []struct {
		name     string
		notifier *fake
		event    bool
	}{
		{"idle", &fake{kind: KindExec}, false},
		{"during a notification", &fake{kind: KindExec, takes: time.Hour}, true},
		{"during a verification", &fake{kind: KindVerify, takes: time.Hour}, true},
		{"waiting for a retry", &fake{kind: KindExec, failures: 1000}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &journal{}
				row.notifier.journal = j
				config := Config{Observe: j.observe, Log: newLines().logger(), Notifiers: []Notifier{row.notifier}}
				if row.notifier.kind == KindVerify {
					config.Notifiers, config.Verify = nil, row.notifier
				}
				d := NewDispatcher(config)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					d.Run(ctx)
				}()
				if row.event {
					d.Dispatch(Event{Serial: "01"})
				}
				synctest.Wait()
				j.take()
				begin := time.Now()
				cancel()
				<-done
				assert.Zero(t, time.Since(begin))
				_, outcomes := j.take()
				assert.Empty(t, outcomes, "what the end cuts off is no failure")
			})
		})
	}
}

func TestDispatcher_takes_an_event_before_it_runs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		d := NewDispatcher(Config{Notifiers: []Notifier{&fake{kind: KindExec, journal: j}}, Log: newLines().logger()})
		d.Dispatch(Event{Serial: "01"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go d.Run(ctx)
		synctest.Wait()
		entries, _ := j.take()
		require.Equal(t, []string{"exec 01 begins", "exec 01 succeeds"}, entries)
	})
}

// absentee is an application that comes after a while, and may be away later.
type absentee struct {
	fake
	absent atomic.Bool
}

func newAbsentee(kind string, j *journal) *absentee {
	a := &absentee{fake: fake{kind: kind, journal: j}}
	a.absent.Store(true)
	return a
}

func (a *absentee) Notify(ctx context.Context, event Event) error {
	if a.absent.Load() {
		a.journal.add("%s %s finds nobody", a.kind, event.Serial)
		return fmt.Errorf("telling: %w", &absentError{errors.New("nobody is there")})
	}
	return a.fake.Notify(ctx, event)
}

func TestDispatcher_application_that_is_still_to_come_is_no_failure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		signal, verify := newAbsentee(KindSignal, j), newAbsentee(KindVerify, j)
		d := runDispatcher(t, j, log, verify, signal)
		d.Dispatch(Event{Reason: "enrolled", Serial: "01"})
		time.Sleep(4 * time.Minute)
		entries, outcomes := j.take()
		assert.Empty(t, outcomes)
		assert.Greater(t, len(entries), 2*4*60/5, "it is looked for often")
		assert.Equal(t, []string{
			`level=INFO msg="the application is not there yet, trying again until it is" kind=signal reason=enrolled serial=01 try=1 error="telling: nobody is there"`,
			`level=INFO msg="the application is not there yet, trying again until it is" kind=verify reason=enrolled serial=01 try=1 error="telling: nobody is there"`,
		}, log.all())
		signal.absent.Store(false)
		verify.absent.Store(false)
		time.Sleep(10 * time.Second)
		_, outcomes = j.take()
		assert.Equal(t, []string{"signal success", "verify success"}, outcomes)

		signal.absent.Store(true)
		d.Dispatch(Event{Reason: "renewed", Serial: "02"})
		synctest.Wait()
		_, outcomes = j.take()
		assert.Equal(t, []string{"signal failure", "verify success"}, outcomes, "it was there, and is no longer")
		assert.Contains(t, strings.Join(log.all(), "\n"), `level=ERROR msg="telling the application failed" kind=signal reason=renewed`)
	})
}

func TestDispatcher_application_that_never_comes_is_a_failure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, newLines()
		d := runDispatcher(t, j, log, nil, newAbsentee(KindURL, j))
		d.Dispatch(Event{Serial: "01"})
		time.Sleep(freshFor + time.Minute)
		_, outcomes := j.take()
		assert.NotEmpty(t, outcomes)
		assert.Equal(t, "url failure", outcomes[0])
		assert.Contains(t, log.all()[1], `level=ERROR msg="telling the application failed" kind=url`)
	})
}
