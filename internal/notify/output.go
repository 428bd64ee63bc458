package notify

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// Bounds on what a command may put into the log with each run.
const (
	maxOutputLines     = 100
	maxOutputLineBytes = 1024
)

// commandOutput forwards a command's output to the log, a line for a line, within bounds. It reads until
// nobody holds the output any more, which may be long after the command's end.
type commandOutput struct {
	log      *slog.Logger
	complete chan struct{} // closed after the last line was logged

	mu             sync.Mutex
	lines, dropped int
}

func newCommandOutput(log *slog.Logger) *commandOutput {
	return &commandOutput{log: log, complete: make(chan struct{})}
}

// start starts cmd with its output going here. ended must be called after cmd.Wait, which waits for the
// command alone and not for the output.
func (o *commandOutput) start(cmd *exec.Cmd) (ended func(), err error) {
	stdout, stdoutEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdoutEnd.Close() // the command has its own
	stderr, stderrEnd, err := os.Pipe()
	if err != nil {
		stdout.Close()
		return nil, err
	}
	defer stderrEnd.Close()
	cmd.Stdout, cmd.Stderr = stdoutEnd, stderrEnd
	if ended, err = startCommand(cmd); err != nil {
		stdout.Close()
		stderr.Close()
		return nil, err
	}
	var readers sync.WaitGroup
	readers.Go(func() { o.read("stdout", stdout) })
	readers.Go(func() { o.read("stderr", stderr) })
	go func() {
		readers.Wait()
		o.close()
		close(o.complete)
	}()
	return ended, nil
}

// read forwards one stream until its end.
func (o *commandOutput) read(stream string, from *os.File) {
	defer from.Close()
	lines := &lineWriter{output: o, stream: stream}
	_, _ = io.Copy(lines, from) // a pipe fails in no way that anybody could mend
	lines.flush()
}

func (o *commandOutput) emit(stream string, line []byte, cut bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lines == maxOutputLines {
		o.dropped++
		return
	}
	o.lines++
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	if cut {
		text += " … (cut)"
	}
	o.log.Info("output of the command", "stream", stream, "line", text)
}

// close reports what did not fit.
func (o *commandOutput) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dropped > 0 {
		o.log.Warn("dropped further output of the command", "lines", o.dropped, "limit", maxOutputLines)
	}
}

// lineWriter is one of the command's output streams.
type lineWriter struct {
	output *commandOutput
	stream string

	line []byte // of the line that is not complete, no more than maxOutputLineBytes
	cut  bool   // the line has more than that
}

func (w *lineWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		part, rest, complete := bytes.Cut(p, []byte{'\n'})
		fits := min(len(part), maxOutputLineBytes-len(w.line))
		w.line = append(w.line, part[:fits]...)
		w.cut = w.cut || fits < len(part)
		if complete {
			w.flush()
		}
		p = rest
	}
	return written, nil
}

// flush ends the line; empty ones are not worth a record.
func (w *lineWriter) flush() {
	line := bytes.TrimRight(w.line, "\r")
	if len(line) > 0 {
		w.output.emit(w.stream, line, w.cut)
	}
	w.line, w.cut = w.line[:0], false
}
