package notify

import (
	"bufio"
	"io"
	"log/slog"
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

// start starts cmd with its output going here. ended must be called when the process has been waited for.
func (o *commandOutput) start(cmd *exec.Cmd) (ended func(), err error) {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err // the garbage collector closes what is open
	}
	if ended, err = startCommand(cmd); err != nil {
		return nil, err
	}
	var readers sync.WaitGroup
	readers.Go(func() { o.read("stdout", stdout) })
	readers.Go(func() { o.read("stderr", stderr) })
	go func() {
		readers.Wait()
		if o.dropped > 0 {
			o.log.Warn("dropped further output of the command", "lines", o.dropped, "limit", maxOutputLines)
		}
		close(o.complete)
	}()
	return ended, nil
}

// read forwards one stream until its end: a pipe fails in no way that could be repaired. Empty lines are not worth a
// record.
func (o *commandOutput) read(stream string, from io.ReadCloser) {
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

func (o *commandOutput) emit(stream, line string, cut bool) {
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
