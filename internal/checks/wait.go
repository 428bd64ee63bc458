package checks

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The pauses between one run of the checks and the next, and how often Wait says again what it waits for.
const (
	firstPause = time.Second
	mostPause  = 10 * time.Second
	sayEvery   = 30 * time.Second
)

// Wait runs the checks until none fails, until the time is over, or ctx ends, and returns the last
// report. With no time it runs them once. A line of progress says what fails, when that changes,
// and else twice a minute.
func Wait(ctx context.Context, most time.Duration, progress io.Writer, run func(context.Context) Report) Report {
	start, pause := time.Now(), firstPause
	said, lastSaid := "", time.Time{}
	for {
		report := run(ctx)
		left := most - time.Since(start)
		if report.ExitCode() == 0 || left <= 0 || ctx.Err() != nil {
			return report
		}
		failing := strings.Join(report.failing(), ", ")
		if failing != said || time.Since(lastSaid) >= sayEvery {
			said, lastSaid = failing, time.Now()
			fmt.Fprintf(progress, "waiting for %s more, failed: %s\n", left.Round(time.Second), failing)
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-ctx.Done():
			timer.Stop()
			return report
		case <-timer.C:
		}
		pause = min(2*pause, mostPause)
	}
}

// failing names each check that failed, once.
func (r Report) failing() (names []string) {
	for _, c := range r.Checks {
		name := c.Name
		if c.CA != "" {
			name += " (" + c.CA + ")"
		}
		if c.Status == Failed && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
