package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
func dispatcher(kinds string, takes time.Duration) (d *Dispatcher, fakes []*fake, journal, log lines) {
	journal, log = make(lines, 10_000), make(lines, 10_000)
	config := Config{Log: log.logger(), Observe: func(_ string, outcome Outcome) { journal <- string(outcome) }}
	for _, word := range strings.Fields(kinds) {
		f := &fake{kind: strings.Trim(word, "!"), failures: strings.Count(word, "!"), journal: journal}
		fakes = append(fakes, f)
		switch f.kind {
		case "postprocess":
			config.Prepare = f
		case KindVerify:
			config.Verify = f
		default:
			config.Notifiers = append(config.Notifiers, f)
		}
	}
	fakes[len(fakes)-1].takes = takes
	return NewDispatcher(config), fakes, journal, log
}

func TestDispatcher_order(t *testing.T) {
	for sentence, row := range map[string]struct {
		kinds  string
		takes  time.Duration // the last of them
		events int
		kept   bool
		want   string
	}{
		"all run in order, and the verification last": {"exec url verify", 0, 1, false,
			"exec00 success url00 success notified verify00 success"},
		"what prepares runs first, and a failed verification leaves no notification " +
			"pending": {"postprocess! exec! url verify!", 0, 1, false,
			"postprocess00 failure exec00 failure url00 success verify00 failure " +
				"postprocess00 success exec00 success notified verify00 success"},
		"no one is notified of a certificate that was kept": {"postprocess exec verify", 0, 1, true,
			"postprocess00 success notified verify00 success"},
		"only what failed is tried again": {"exec!! signal verify!", 0, 1, false,
			"exec00 failure signal00 success verify00 failure exec00 failure verify00 success exec00 success notified"},
		"the last one fails for a while": {"exec url!!", 0, 1, false,
			"exec00 success url00 failure url00 failure url00 success notified"},
		"a newer event ends the tries for an older one": {"exec! url", 0, 2, false,
			"exec00 failure url00 success exec01 success url01 success notified"},
		"a failure that a newer event overtook counts": {"exec!", time.Minute, 2, false,
			"exec00 failure exec01 success notified"},
		"a verification ends for a newer event": {"signal verify", time.Minute, 2, false,
			"signal00 success notified verify00 signal01 success notified verify01 success"},
		"what is under way may end, and then only the newest event counts": {"exec", time.Hour, 100, false,
			"exec00 success exec99 success notified"},
	} {
		t.Run(sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, _, journal, _ := dispatcher(row.kinds, row.takes)
				begin := time.Now()
				for i := range row.events {
					serial := fmt.Sprintf("%02d", i)
					d.Dispatch(Event{Serial: serial, Kept: row.kept, Notified: func() { journal <- "notified" }})
					if i == 0 { // it keeps an event that comes before it runs
						go d.Run(t.Context())
					}
					synctest.Wait()
				}
				assert.Zero(t, time.Since(begin), "Dispatch must not wait")
				time.Sleep(3 * time.Hour)
				assert.Equal(t, row.want, strings.Join(journal.all(), " "))
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
		want, err := os.ReadFile("testdata/dispatcher.txt")
		require.NoError(t, err)
		got := strings.Join(log.all(), "\n") + "\n"
		assert.Equal(t, string(want), regexp.MustCompile(`retry_in=\S+`).ReplaceAllString(got, "retry_in=…"))
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
				assert.Equal(t, row.want, strings.Join(journal.all(), " "))
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
		assert.Contains(t, strings.Join(journal.all(), " "), "signal01 success url01 verify01 success")

		fakes[0].absent.Store(true)
		d.Dispatch(Event{Reason: "renewed", Serial: "02"})
		synctest.Wait()
		assert.Equal(t, "signal02 failure url02 verify02 success", strings.Join(journal.all(), " "),
			"it was there, and is no longer")
		time.Sleep(freshFor + 10*time.Minute)
		assert.Contains(t, strings.Join(journal.all(), " "), "url02 failure", "it never came")
	})
}
