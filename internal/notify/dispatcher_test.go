package notify

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
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

// stage is a Dispatcher with fakes, under way.
type stage struct {
	*Dispatcher
	fakes        map[string]*fake
	journal, log lines
	stop         func()
	ended        bool
}

func newStage(t *testing.T, kinds []string) *stage {
	s := &stage{fakes: map[string]*fake{}, journal: make(lines, 10_000), log: make(lines, 10_000)}
	config := Config{Log: s.log.logger(), Observe: func(_ string, outcome Outcome) { s.journal <- string(outcome) }}
	for _, kind := range kinds {
		f := &fake{kind: kind, journal: s.journal}
		s.fakes[kind] = f
		switch kind {
		case "postprocess":
			config.Prepare = f
		case KindVerify:
			config.Verify = f
		default:
			config.Notifiers = append(config.Notifiers, f)
		}
	}
	s.Dispatcher = NewDispatcher(config)
	return s
}

// publish hands on an event, before the Dispatcher runs if it is the first.
func (s *stage) publish(t *testing.T, serial string, kept bool) {
	begin := time.Now()
	s.Dispatch(Event{Reason: "renewed", Serial: serial, Kept: kept, Notified: func() { s.journal <- "notified" }})
	assert.Zero(t, time.Since(begin), "Dispatch must not wait")
	if s.stop == nil {
		var ctx context.Context
		ctx, s.stop = context.WithCancel(t.Context())
		go func() {
			s.Run(ctx)
			s.ended = true
		}()
	}
}

// tries lets a time pass in which each fake has to be tried every so often, and says what was then in the journal.
func (s *stage) tries(t *testing.T, during, least, most time.Duration) string {
	time.Sleep(during)
	synctest.Wait()
	seen := s.journal.all()
	began := 0
	for _, entry := range seen {
		if strings.ContainsAny(entry, "0123456789") {
			began++
		}
	}
	every := during / time.Duration(began/len(s.fakes))
	assert.True(t, least <= every && every <= most, "tried every %v", every)
	slices.Sort(seen)
	return strings.Join(slices.Compact(seen), ", ") + "\n"
}

// TestDispatcher plays commands, which are below, and shows the journal of what began and how it ended.
func TestDispatcher(t *testing.T) {
	golden.Play(t, "dispatcher.txt", func(t *testing.T, _, commands string) (got string) {
		synctest.Test(t, func(t *testing.T) {
			var s *stage
			for command := range strings.Lines(commands) {
				got += command
				words := strings.Fields(command)[1:]
				duration := func(i int) time.Duration { return fixture.Must(time.ParseDuration(words[i])) }
				switch command := strings.Join(words, " "); {
				case s == nil:
					s = newStage(t, words)
				case words[0] == "publish":
					s.publish(t, words[1], false)
				case words[0] == "keep":
					s.publish(t, words[1], true)
				case words[0] == "pass":
					time.Sleep(duration(1))
				case command == "end":
					s.stop()
					synctest.Wait()
					require.True(t, s.ended, "at once")
				case command == "show the log":
					got += regexp.MustCompile(`retry_in=\S+`).ReplaceAllString(
						strings.Join(s.log.all(), "\n"), "retry_in=…") + "\n"
				case words[0] == "tries":
					got += s.tries(t, duration(1), duration(3), duration(5))
				case words[1] == "takes":
					s.fakes[words[0]].takes = duration(2)
				case words[1] == "fails":
					fixture.Must(fmt.Sscan(words[2], &s.fakes[words[0]].failures))
				case words[2] == "absent", words[2] == "there":
					s.fakes[words[0]].absent.Store(words[2] == "absent")
				default:
					require.Fail(t, command)
				}
				synctest.Wait()
				if text := s.journal.text(); text != "" {
					got += text + "\n"
				}
			}
		})
		return got
	})
}
