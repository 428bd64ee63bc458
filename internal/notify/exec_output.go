package notify

import (
	"bufio"
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

// commandOutput forwards a command's output to the log, line by line, within bounds. It reads until
// no process holds the output open any more, which may be long after the command's end.
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

// read forwards one stream until its end: a pipe fails in no way that could be repaired. Empty lines are not worth a
// record.
func (o *commandOutput) read(stream string, from *os.File) {
	defer from.Close()
	reader := bufio.NewReaderSize(from, maxOutputLineBytes)
	for {
		begin, more, err := reader.ReadLine()
		if err != nil {
			return
		}
		line, cut := string(begin), false
		for more && err == nil {
			begin, more, err = reader.ReadLine()
			cut = cut || len(begin) > 0
		}
		if line = strings.TrimRight(line, "\r"); line != "" {
			o.emit(stream, line, cut)
		}
	}
}

func (o *commandOutput) emit(stream string, line string, cut bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lines == maxOutputLines {
		o.dropped++
		return
	}
	o.lines++
	text := strings.ToValidUTF8(line, "\uFFFD")
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
