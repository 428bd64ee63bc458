package program

import (
	"context"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// LogSettings says how to log. Its zero value is lines for people where they are seen on a
// terminal, JSON elsewhere, from level info on.
type LogSettings struct {
	Text, JSON bool // key=value, or JSON, wherever the log goes
	Level      slog.Level
}

// Log reads LOG_FORMAT and LOG_LEVEL, which the type must have.
func (r *Reader) Log() LogSettings {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo,
		"warn": slog.LevelWarn, "error": slog.LevelError}
	format := r.Choice("LOG_FORMAT", "auto", "json", "text")
	return LogSettings{Text: format == "text", JSON: format == "json",
		Level: levels[r.Choice("LOG_LEVEL", "debug", "info", "warn", "error")]}
}

// ForPeople tells whether a log to w is lines for people.
func (l LogSettings) ForPeople(w io.Writer) bool { return !l.Text && !l.JSON && IsTerminal(w) }

// Logger returns a logger that writes to w. A duration under key
// is the number key_ms, in milliseconds, and times are in UTC, so
// that lines of both programs can be joined and computed with.
func (l LogSettings) Logger(w io.Writer) *slog.Logger {
	if l.ForPeople(w) {
		return slog.New(&lines{w: w, mu: new(sync.Mutex), level: l.Level, colour: UsesColour(w)})
	}
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

// IsTerminal tells whether a person sees what is written to w.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ) // which all systems have, and other files not
	return err == nil
}

// UsesColour tells whether text that is written to w is to have colour: on a terminal that can show it. NO_COLOR takes
// it away, and else CLICOLOR_FORCE gives it, whatever w is.
func UsesColour(w io.Writer) bool {
	if os.Getenv("NO_COLOR") != "" {
		return false
	}
	if force := os.Getenv("CLICOLOR_FORCE"); force != "" && force != "0" {
		return true
	}
	return IsTerminal(w) && os.Getenv("TERM") != "dumb"
}

// lines is a handler that writes a line for people for each record:
//
//	15:04:05Z ERROR message: VARIABLE what is wrong with it key=value
//
// The attributes variable and error stand after the message, where error may have the variable itself. What others
// wrote into a value cannot steer the terminal.
type lines struct {
	w      io.Writer
	mu     *sync.Mutex // of all that write to w
	level  slog.Level
	colour bool
	prefix string // of keys
	with   []slog.Attr
}

func (h *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.with = append(next.with[:len(next.with):len(next.with)], h.prefixed(attrs)...)
	return &next
}

func (h *lines) WithGroup(name string) slog.Handler {
	next := *h
	next.prefix += name + "."
	return &next
}

func (h *lines) prefixed(attrs []slog.Attr) (all []slog.Attr) {
	for _, a := range attrs {
		all = append(all, slog.Attr{Key: h.prefix + a.Key, Value: a.Value})
	}
	return all
}

func (h *lines) Handle(_ context.Context, r slog.Record) error {
	var own []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		own = append(own, a)
		return true
	})
	var variable, problem, rest string
	for _, a := range append(h.with[:len(h.with):len(h.with)], h.prefixed(own)...) {
		switch value := lineValue(a.Value); a.Key {
		case "variable":
			variable = value + " "
		case "error":
			problem = value
		default:
			if value == "" || strings.ContainsAny(value, " =\"") {
				value = strconv.Quote(value)
			}
			rest += " " + a.Key + "=" + value
		}
	}
	text := printable(r.Message)
	if strings.HasPrefix(problem, variable) {
		variable = ""
	}
	if variable+problem != "" {
		text += ": " + variable + problem
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, r.Time.UTC().Format("15:04:05Z ")+h.levelText(r.Level)+" "+text+h.dim(rest)+"\n")
	return err
}

// lineValue is a value on a line: one of several lines has them after one another.
func lineValue(v slog.Value) string {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindDuration:
		return v.Duration().Round(time.Millisecond / 10).String()
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339)
	}
	separates := func(c rune) bool { return c == '\n' || c == '\t' }
	return printable(strings.Join(strings.FieldsFunc(v.String(), separates), "; "))
}

// printable is a text without what steers a terminal.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '�'
	}, text)
}

// Colours of a terminal, as escape sequences.
const (
	red, yellow, green, grey = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[90m"

	plain = "\x1b[0m"
)

func (h *lines) levelText(level slog.Level) string {
	text, colour := level.String(), grey
	switch {
	case level >= slog.LevelError:
		colour = red
	case level >= slog.LevelWarn:
		colour = yellow
	case level >= slog.LevelInfo:
		colour = green
	}
	if len(text) < len("ERROR") {
		text += " "
	}
	if !h.colour {
		return text
	}
	return colour + text + plain
}

func (h *lines) dim(text string) string {
	if !h.colour || text == "" {
		return text
	}
	return grey + text + plain
}
