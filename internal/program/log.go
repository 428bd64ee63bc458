package program

import (
	"io"
	"log/slog"
)

// LogSettings says how to log. Its zero value is JSON from level info on.
type LogSettings struct {
	Text  bool
	Level slog.Level
}

// Log reads LOG_FORMAT and LOG_LEVEL, which the type must have.
func (r *Reader) Log() LogSettings {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	return LogSettings{
		Text:  r.Choice("LOG_FORMAT", "json", "text") == "text",
		Level: levels[r.Choice("LOG_LEVEL", "debug", "info", "warn", "error")],
	}
}

// Logger returns a logger that writes to w. Durations have their unit, where slog's JSON has bare nanoseconds.
func (l LogSettings) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.Level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if l.Text {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
