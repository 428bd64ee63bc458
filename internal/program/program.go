// Package program has what every program of this repository does: it reads
// the environment by a table of variables, logs, prints its help and its
// version, listens, serves series and answers or asks for a probe.
package program

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
)

// version is set by the linker: -X
// github.com/certfetcher/certfetcher/internal/program.version=v1.2.3.
var version string

// Documentation is where the documents are read; each file of docs is below it.
const Documentation = "https://github.com/certfetcher/certfetcher/blob/main/docs/"

// Version is the version that was linked in, or that of the
// module when go install built the program.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// LogSettings says how to log. Its zero value is JSON from level info on.
type LogSettings struct {
	Text  bool
	Level slog.Level
}

// Log reads LOG_FORMAT and LOG_LEVEL, which the type must have.
func (r *Reader) Log() LogSettings {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo,
		"warn": slog.LevelWarn, "error": slog.LevelError}
	return LogSettings{
		Text:  r.Choice("LOG_FORMAT", "json", "text") == "text",
		Level: levels[r.Choice("LOG_LEVEL", "debug", "info", "warn", "error")],
	}
}

// Logger returns a logger that writes to w. A duration under key
// is the number key_ms, in milliseconds, and times are in UTC, so
// that lines of both programs can be joined and computed with.
func (l LogSettings) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.Level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Value.Kind() {
		case slog.KindDuration:
			a = slog.Float64(a.Key+"_ms", math.Round(float64(a.Value.Duration().Microseconds())/100)/10)
		case slog.KindTime:
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
		return a
	}}
	if l.Text {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// ServerGC lets the garbage collector of a server wait until the heap is four times what is in
// use, unless GOGC says otherwise. What a request leaves is little and all of it garbage:
// collecting it as often as Go does by default took an eighth of the processor's time under load.
// GOMEMLIMIT still bounds it.
func ServerGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300)
	}
}

// ParseFlags reads the flags of a program that is configured by its environment:
// --help, for which usage writes the text, --version and, unless check is nil,
// --check. done says that nothing is left to do; err is that of writing to
// standard output then, mostly a closed pipe, and otherwise about wrong flags.
func ParseFlags(name string, args []string, check *bool, stdout io.Writer, usage func(io.Writer) error) (
	done bool, err error,
) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {} // --help goes to standard output; wrong flags need no page of text
	version := flags.Bool("version", false, "")
	if check != nil {
		flags.BoolVar(check, "check", false, "")
	}
	err = flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		err = usage(stdout)
	case err != nil:
		return false, err
	case flags.NArg() > 0:
		return false, fmt.Errorf("there is no command %q", flags.Arg(0))
	case *version:
		_, err = fmt.Fprintf(stdout, "%s %s\n", name, Version())
	default:
		return false, nil
	}
	return true, err
}
