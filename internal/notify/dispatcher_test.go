package notify

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// fake is a Notifier that takes a time, fails some times, and writes into a journal that it began.
type fake struct {
	kind     string
	takes    time.Duration
	failures int
	absent   atomic.Bool // finds no application
	journal  lines
}

func (f *fake) Kind() string { return f.kind }

func (f *fake) Notify(ctx context.Context, event Event) error {
	f.journal <- f.kind + event.Serial
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.absent.Load() {
		return fmt.Errorf("looking: %w", &absentError{errors.New("nothing is there")})
	}
	if f.failures > 0 {
		f.failures--
		return errors.New("no luck")
	}
	return nil
}

// dispatcher makes one with fakes of the kinds, each with a ! behind it for each time that it fails. All that happens
// goes into the journal.
func dispatcher(kinds string, takes time.Duration) (d *Dispatcher, all []*fake, journal, log lines) {
	journal, log = make(lines, 10_000), make(lines, 10_000)
	config := Config{Log: log.logger(), Observe: func(_ string, outcome Outcome) { journal <- string(outcome) }}
	for _, word := range strings.Fields(kinds) {
		f := &fake{kind: strings.Trim(word, "!"), failures: strings.Count(word, "!"), journal: journal}
		all = append(all, f)
		switch f.kind {
		case "postprocess":
			config.Prepare = f
		case KindVerify:
			config.Verify = f
		default:
			config.Notifiers = append(config.Notifiers, f)
		}
	}
	all[len(all)-1].takes = takes
	return NewDispatcher(config), all, journal, log
}

func TestDispatcher_order(t *testing.T) {
	for sentence, text := range golden.Read(t, "orders.txt") {
		given, want, _ := strings.Cut(strings.TrimSpace(text), "\n")
		words := strings.Split(given, " | ")
		takes := fixture.Must(time.ParseDuration(words[1]))
		events := fixture.Must(strconv.Atoi(words[2]))
		t.Run(sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, _, journal, _ := dispatcher(words[0], takes)
				begin := time.Now()
				for i := range events {
					serial := fmt.Sprintf("%02d", i)
					notified := func() { journal <- "notified" }
					d.Dispatch(Event{Serial: serial, Kept: words[3] == "true", Notified: notified})
					if i == 0 { // it keeps an event that comes before it runs
						go d.Run(t.Context())
					}
					synctest.Wait()
				}
				assert.Zero(t, time.Since(begin), "Dispatch must not wait")
				time.Sleep(3 * time.Hour)
				assert.Equal(t, want, journal.text())
			})
		})
	}
}

func TestDispatcher_log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, _, log := dispatcher("postprocess! exec! verify!", 0)
		go d.Run(t.Context())
		for _, serial := range []string{"01", "02"} {
			d.Dispatch(Event{Reason: "renewed", Serial: serial})
			synctest.Wait()
		}
		got := strings.Join(log.all(), "\n") + "\n"
		golden.File(t, "dispatcher.txt", regexp.MustCompile(`retry_in=\S+`).ReplaceAllString(got, "retry_in=…"))
	})
}

func TestDispatcher_waitsLongerAndLonger_upToFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, fakes, journal, _ := dispatcher("exec", 0)
		fakes[0].failures = 1_000_000
		go d.Run(t.Context())
		d.Dispatch(Event{})
		time.Sleep(499 * time.Millisecond)
		assert.Len(t, journal.all(), 2, "no try again before half a second")
		time.Sleep(10 * time.Minute)
		journal.all()
		time.Sleep(24 * time.Hour)
		tries := len(journal.all()) / 2
		assert.GreaterOrEqual(t, tries, 24*60*60/450)
		assert.LessOrEqual(t, tries, 24*60*60/150+1)
	})
}

func TestDispatcher_Run_endsWithItsContext(t *testing.T) {
	for sentence, row := range map[string]struct {
		kinds string
		takes time.Duration
		want  string // what is cut off has no outcome
	}{
		"during a notification": {"exec", time.Hour, "exec"},
		"during a verification": {"verify", time.Hour, "verify"},
		"waiting to try again":  {"exec!", 0, "exec failure"},
		"with nothing to do":    {"exec", 0, "exec success"},
	} {
		t.Run(sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, _, journal, _ := dispatcher(row.kinds, row.takes)
				ctx, cancel := context.WithCancel(t.Context())
				d.Dispatch(Event{})
				time.AfterFunc(time.Millisecond, cancel)
				begin := time.Now()
				d.Run(ctx)
				assert.Equal(t, time.Millisecond, time.Since(begin))
				assert.Equal(t, row.want, journal.text())
			})
		})
	}
}

func TestDispatcher_applicationThatIsStillToCome_isNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, fakes, journal, log := dispatcher("signal url verify", 0)
		for _, f := range fakes {
			f.absent.Store(true)
		}
		go d.Run(t.Context())
		d.Dispatch(Event{Reason: "enrolled", Serial: "01"})
		time.Sleep(2 * time.Minute)
		tries := journal.all()
		assert.NotContains(t, tries, "failure")
		assert.Greater(t, len(tries), 3*2*60/5, "it is looked for often")
		logged := log.all()
		require.Len(t, logged, 3, "each says so once")
		assert.Equal(t, `level=INFO msg="the application is not there yet, trying again until it is" `+
			`kind=signal trigger=enrolled serial=01 try=1 error="looking: nothing is there"`, logged[0])
		fakes[0].absent.Store(false)
		fakes[2].absent.Store(false)
		time.Sleep(10 * time.Second)
		assert.Contains(t, journal.text(), "signal01 success url01 verify01 success")

		fakes[0].absent.Store(true)
		d.Dispatch(Event{Reason: "renewed", Serial: "02"})
		synctest.Wait()
		assert.Equal(t, "signal02 failure url02 verify02 success", journal.text(),
			"it was there, and is no longer")
		time.Sleep(freshFor + 10*time.Minute)
		assert.Contains(t, journal.text(), "url02 failure", "it never came")
	})
}
