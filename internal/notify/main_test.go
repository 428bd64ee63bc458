package notify

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain is also the main function of the commands and applications that the tests start: the test
// binary itself, told by its first argument which one to be.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			role(os.Args[2:])
			// Not os.Exit, which with -cover prints a warning and with -race waits a second.
			syscall.Exit(0)
		}
	}
	os.Exit(m.Run())
}

var roles = map[string]func(args []string){
	// show prints its arguments and environment as JSON.
	"show": func(args []string) {
		environ := os.Environ()
		slices.Sort(environ)
		_ = json.NewEncoder(os.Stdout).Encode(map[string][]string{"args": args, "environ": environ})
	},
	"exit": func(args []string) {
		code, _ := strconv.Atoi(args[0])
		syscall.Exit(code)
	},
	"suicide": func([]string) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		waitForEver()
	},
	// print writes its second argument as often as the first says, to standard output.
	"print": func(args []string) {
		times, _ := strconv.Atoi(args[0])
		for range times {
			fmt.Println(args[1])
		}
	},
	"complain": func([]string) { fmt.Fprint(os.Stderr, "cannot reload\r\n\nno line break") },
	"hang":     func([]string) { waitForEver() },
	// family starts a child that holds the output open, and neither ends.
	"family": func([]string) {
		child := start("hang")
		fmt.Println("child", child.Process.Pid)
		waitForEver()
	},
	// abandon leaves a child that holds the output open.
	"abandon": func([]string) { start("echo") },
	// echo prints the signals it gets.
	"echo": func([]string) {
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, syscall.SIGHUP)
		fmt.Println("child", os.Getpid())
		for s := range signals {
			fmt.Println("got", s)
		}
	},
	// orphan leaves children that end when it does.
	"orphan": func([]string) {
		for range 3 {
			start("nothing")
		}
		syscall.Exit(3)
	},
	"nothing":     func([]string) {},
	"application": func(args []string) { application("application") },
	// master is an application with a worker that goes by the same name, as nginx has.
	"master": func([]string) {
		worker := exec.Command(os.Args[0], "worker")
		worker.Stdout = os.Stdout
		stdin, _ := worker.StdinPipe()
		if err := worker.Start(); err != nil {
			panic(err)
		}
		fmt.Println("worker is", worker.Process.Pid)
		application("master")
		_ = stdin.Close()
		_ = worker.Wait()
	},
	"worker": func([]string) { application("worker") },
}

func start(role string) *exec.Cmd {
	child := exec.Command(os.Args[0], role)
	child.Stdout = os.Stdout
	if err := child.Start(); err != nil {
		panic(err)
	}
	return child
}

func waitForEver() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals)
	for range signals {
	}
}

// application prints the signals it gets, until its standard input ends.
func application(name string) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1)
	fmt.Println(name, "is ready")
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	for {
		select {
		case s := <-signals:
			fmt.Println(name, "got", s)
		case <-ended:
			return
		}
	}
}

// patience bounds waits for things that happen at once unless something is wrong.
const patience = 20 * time.Second

// lines hands on what is written to it, line by line.
type lines chan string

func newLines() lines { return make(lines, 1000) }

func (l lines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		l <- strings.TrimSuffix(line, "\n")
	}
	return len(p), nil
}

// next waits for the next line.
func (l lines) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-time.After(patience):
		require.Fail(t, "no further line came")
		return ""
	}
}

// all returns the lines that are there.
func (l lines) all() []string {
	var list []string
	for {
		select {
		case line := <-l:
			list = append(list, line)
		default:
			return list
		}
	}
}

// logger logs to l, without times.
func (l lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// startApplication runs the test binary under another name, and returns it with its output.
func startApplication(t *testing.T, path, role string) (*exec.Cmd, lines) {
	t.Helper()
	cmd := exec.Command(path, role)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := newLines()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			out <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		<-read
		_ = cmd.Wait()
	})
	return cmd, out
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

var testEvent = Event{
	Reason: "renewed", Serial: "0A1B",
	NotBefore: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), NotAfter: time.Date(2026, 4, 2, 3, 4, 5, 0, time.FixedZone("", 7200)),
	Dir: "/certs", Paths: []string{"/certs/keystore.p12", "/certs/keystore.pass"},
}
