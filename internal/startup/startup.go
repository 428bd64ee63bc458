// Package startup does, by being imported, what a program has to do before anything else, at a
// time at which most packages are not initialised yet:
//
//   - Other processes of the same user can no longer read this one's memory and environment, and
//     no core is dumped.
//   - The standard logger writes nothing: our programs log through log/slog alone, one JSON object
//     on a line, which a line of a dependency through package log would break.
//   - SIGTERM and SIGINT end Context and nothing else.
//   - A program that cannot open even a few files says so and ends with ExitTooFewFiles, where
//     Go's runtime would
//     end with 2.
//
// It imports next to nothing, because Go initialises packages in the order of their paths as soon
// as their own imports are. That is a quarter of the time from exec to main earlier than the first
// statement of main (median 3.6 and 4.9 ms).
package startup

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/stack"
)

// ExitTooFewFiles is the exit code of a program that may
// have too few files open at the same time (RLIMIT_NOFILE).
const ExitTooFewFiles = 99

const tooFewFiles = `{"level":"ERROR","msg":"too few files may be open to begin: fewer than 10 more, ` +
	`want RLIMIT_NOFILE (ulimit -n) at 64 or more","exit_code":99}` + "\n"

// Context ends with the first SIGTERM or SIGINT since the process began. Later ones change nothing.
var Context context.Context

func init() {
	hide()
	stack.Grow() // for the initialisation of the other packages

	log.SetOutput(io.Discard)
	// Never stopped: the default action of a second signal would have another exit code.
	Context, _ = signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	if !enoughFiles() {
		// As the log has it; package log/slog is not initialised yet.
		_, _ = syscall.Write(2, []byte(tooFewFiles))
		os.Exit(ExitTooFewFiles)
	}
}

// endMost is how long after a signal a program may go on at what does not know of Context.
const endMost = time.Second

// EndWithin ends the process with code a second after Context has ended, whatever it is at then: a
// file system that does not answer, mostly. A program that is about to do what looks at Context,
// and may take longer, calls stop first.
func EndWithin(code int) (stop func() bool) {
	return context.AfterFunc(Context, func() {
		time.Sleep(endMost)
		os.Exit(code)
	})
}

// SurvivePipes has a program go on when no one reads its log any more: a write fails then, where
// the process would be ended by SIGPIPE. The signal is taken and not ignored, as the latter would
// be handed down to the commands that are run.
func SurvivePipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
