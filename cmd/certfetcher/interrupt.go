package main

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/sidecar"
)

// endMost is how long a signal leaves for what is under way to end by itself: a publication takes milliseconds, and a
// sidecar ends all its parts in EndGrace.
const endMost = sidecar.EndGrace + 100*time.Millisecond

// errInterrupted is the failure of a run that a signal ended.
var errInterrupted = errors.New("interrupted by a signal")

// loaded is what the run works with, as soon as that is read, for who has to report in its place.
var loaded atomic.Pointer[setup]

// untilSignal does the work and returns its exit code. When ctx ends, the work has endMost to end as well. What then
// goes on is left to the end of the process, which a volume survives at any moment: it may be at something that knows
// no ctx, such as making a large key, opening a store whose password is hashed millions of times, or a slow disk.
func untilSignal(ctx context.Context, stderr io.Writer, work func() int) int {
	ended := make(chan int, 1)
	go func() { ended <- work() }()
	select {
	case code := <-ended:
		return code
	case <-ctx.Done():
	}
	select {
	case code := <-ended:
		return code
	case <-time.After(endMost):
		return reportInterruption(stderr)
	}
}

func reportInterruption(stderr io.Writer) int {
	s := setup{config: &config.Fetcher{TerminationMessagePath: config.TerminationMessagePath()}}
	if now := loaded.Load(); now != nil {
		s = *now
	} else {
		s.log = s.config.Log.Logger(stderr)
	}
	s.failure = &enroll.Error{Stage: enroll.StageOther, Err: errInterrupted}
	return report(s)
}
