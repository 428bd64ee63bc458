package notify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// outputGrace is how long to wait for the end of the output after the command has ended, when a
// process that it left behind keeps the pipe open.
const outputGrace = 500 * time.Millisecond

// command runs a program, without a shell, in a process group of its own. The group
// is killed when the time is over or certfetcher ends; a process that the program
// leaves behind when it ends by itself may live on. The output of both goes to the
// log, 100 lines of 1024 bytes at most for each run; what is beyond that is read
// all the same, so that a full or broken pipe holds up or ends no process.
//
// The program's environment has PATH, HOME, TMPDIR, TZ, LANG, LANGUAGE and LC_* of certfetcher's
// own, whose other variables hold passwords, and besides:
//
//	CERTFETCHER_REASON      Event.Reason
//	CERTFETCHER_SERIAL      Event.Serial
//	CERTFETCHER_NOT_BEFORE  RFC 3339, UTC
//	CERTFETCHER_NOT_AFTER   RFC 3339, UTC
//	CERTFETCHER_DIR         Event.Dir
//	CERTFETCHER_<FILE>      the path of each published file, <FILE> being its name in upper case with
//	                        _ for what is not a letter or digit: CERTFETCHER_KEYSTORE_P12,
//	                        CERTFETCHER_KEYSTORE_PASS, CERTFETCHER_KEY_PEM, …
type command struct {
	words   []string // a program without a slash is looked up in PATH
	timeout time.Duration
	environ []string
	log     *slog.Logger
	grace   time.Duration // outputGrace, but in tests
}

func newCommand(s Settings, o Options) (Notifier, error) {
	if s.Exec == "" {
		return nil, nil
	}
	words, err := parseCommand(s.Exec)
	if err != nil {
		return nil, err
	}
	return &command{words, s.Timeout, selectVariables(o.Environ), o.Log, outputGrace}, nil
}

// Kind is KindExec.
func (c *command) Kind() string { return KindExec }

// Check looks for the program.
func (c *command) Check(context.Context, []string) Finding {
	path, err := exec.LookPath(c.words[0])
	if err != nil {
		return Finding{
			Found: fmt.Sprintf("%q cannot be run: %v", c.words[0], startReason(err)), Fatal: true,
			Advice: "the program has to be in this container's image or on a volume, with the right to execute; " +
				"scripts need their interpreter, too",
		}
	}
	return Finding{Found: fmt.Sprintf("%q can be run", path)}
}

// Notify runs the command and waits for its end. Errors name
// the program, not its arguments, which may hold a secret.
func (c *command) Notify(ctx context.Context, event Event) error {
	timed, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	program := c.words[0]
	output := &commandOutput{log: c.log.With("program", program), complete: make(chan struct{})}
	cmd := exec.Command(program, c.words[1:]...)
	cmd.Env = slices.Concat(c.environ, describe(event))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ended, err := output.start(cmd)
	if err != nil {
		return fmt.Errorf("starting %q: %w", program, startReason(err))
	}
	stop := context.AfterFunc(timed, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	state, err := cmd.Process.Wait() // and not cmd.Wait, which would close the output
	ended()
	killed := !stop()
	select {
	case <-output.complete:
	case <-time.After(c.grace):
		output.log.Warn("the command left a process behind that holds its output open; still reading it")
	}
	switch {
	case err != nil:
		return fmt.Errorf("running %q: %w", program, err)
	case state.Success():
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("running %q: killed, because certfetcher ends: %w", program, ctx.Err())
	case killed:
		return fmt.Errorf("running %q: killed, because it has not ended within %v", program, c.timeout)
	}
	return fmt.Errorf("running %q: %s", program, state)
}

// startReason drops the program, which the message names already.
func startReason(err error) error {
	if lookup, ok := errors.AsType[*exec.Error](err); ok {
		err = lookup.Err
	}
	return files.Reason(err)
}

// selectVariables selects those that a program commonly needs and that are not settings of ours.
func selectVariables(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		common := []string{"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE"}
		return !slices.Contains(common, name) && !strings.HasPrefix(name, "LC_")
	})
}

// describe gives the event to the command, as variables.
func describe(event Event) []string {
	list := []string{
		"CERTFETCHER_REASON=" + event.Reason,
		"CERTFETCHER_SERIAL=" + event.Serial,
		"CERTFETCHER_NOT_BEFORE=" + event.NotBefore.UTC().Format(time.RFC3339),
		"CERTFETCHER_NOT_AFTER=" + event.NotAfter.UTC().Format(time.RFC3339),
		"CERTFETCHER_DIR=" + event.Dir,
	}
	for _, path := range event.Paths {
		name := strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, strings.ToUpper(filepath.Base(path)))
		list = append(list, "CERTFETCHER_"+name+"="+path)
	}
	return list
}

// parseCommand splits a command line into words, as a shell does before it does anything else. No
// shell is involved: variables, wildcards, pipes and redirections have no meaning.
//
//   - Words are separated by spaces, tabs and line breaks.
//   - Within single quotes everything stands for itself.
//   - Within double quotes a backslash takes the meaning from a following " or \ and otherwise
//     stands
//     for itself; everything else stands for itself.
//   - Outside quotes a backslash makes any following character stand for itself.
//   - Quoted parts join with what touches them; "" alone is an empty word.
//
// An error says where in the text, counted in bytes from 1, an incomplete quote or backslash is.
// It does not show the text, which may hold a secret.
func parseCommand(text string) ([]string, error) {
	if at := strings.IndexByte(text, 0); at >= 0 {
		return nil, fmt.Errorf("byte %d is NUL, which no argument can hold", at+1)
	}
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case ' ', '\t', '\n', '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
			continue
		case '\\':
			if i++; i == len(text) {
				return nil, fmt.Errorf("the backslash at byte %d has nothing after it", i)
			}
			word.WriteByte(text[i])
		case '\'', '"':
			end, err := appendQuoted(&word, text, i)
			if err != nil {
				return nil, err
			}
			i = end
		default:
			word.WriteByte(c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("there is no program to run")
	}
	return words, nil
}

// appendQuoted appends to word what the quote at start encloses, and returns where it is closed.
func appendQuoted(word *strings.Builder, text string, start int) (int, error) {
	quote := text[start]
	for i := start + 1; i < len(text); i++ {
		switch {
		case text[i] == quote:
			return i, nil
		case text[i] == '\\' && quote == '"' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
		}
		word.WriteByte(text[i])
	}
	return 0, fmt.Errorf("the quote %c at byte %d is not closed", quote, start+1)
}

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

// start starts cmd with its output going here. ended must be
// called when the process has been waited for.
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

// read forwards one stream until its end: a pipe fails in no way that could be repaired. Empty
// lines are not worth a record.
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
