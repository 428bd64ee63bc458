package profile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// Options say what load to make.
type Options struct {
	Connections int
	Key         string        // kind of the leaf keys, such as ECDSA-P256
	For         time.Duration // after a second to warm up
	Environment []string      // of certservice, beside what it needs; of Measure
}

// Load is what a load has found.
type Load struct {
	Enrolments    int
	Took          time.Duration // all of them
	P50, P99, Max time.Duration // of one
	CPU           time.Duration // of certservice, in steps of 10 ms
	Resident      int           // memory of certservice at the end, KiB
}

// Rate is the number of enrolments in a second.
func (l Load) Rate() float64 { return float64(l.Enrolments) / max(l.Took.Seconds(), 1e-9) }

// CPUEach is the processor time of certservice for one enrolment.
func (l Load) CPUEach() time.Duration { return l.CPU / time.Duration(max(1, l.Enrolments)) }

func (l Load) String() string {
	return fmt.Sprintf("%.0f/s, p50 %.1f ms, p99 %.1f ms, longest %.1f ms, certservice %d µs and %.1f MiB", l.Rate(),
		report.Milliseconds(l.P50), report.Milliseconds(l.P99), report.Milliseconds(l.Max), l.CPUEach().Microseconds(),
		float64(l.Resident)/1024)
}

// Running is a process that is ready to make a load.
type Running struct {
	command *exec.Cmd
	stack   *fixture.Stack
	in      io.WriteCloser
	out     *bufio.Reader
	errors  *bytes.Buffer
}

// Begin starts a load, by the program that BuildLoad has built, up to where all connections are open and warm.
func Begin(loader string, s *fixture.Stack, o Options) (*Running, error) {
	r := &Running{stack: s, errors: &bytes.Buffer{}}
	r.command = exec.Command(loader, s.URL+fixture.CAName, s.Dir, o.Key, strconv.Itoa(o.Connections), o.For.String())
	r.command.Stderr = r.errors
	var err error
	if r.in, err = r.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewReader(out)
	if err := r.command.Start(); err != nil {
		return nil, err
	}
	if _, err := r.out.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the load has not begun: %w: %s", r.command.Wait(), r.errors)
	}
	return r, nil
}

// Go makes the load and returns what was found. One failed request is an error.
func (r *Running) Go() (l Load, err error) {
	pid := r.stack.CertService.Process.Pid
	before := chaos.ProcessorTime(pid)
	if err := r.in.Close(); err != nil {
		return l, err
	}
	err = json.NewDecoder(r.out).Decode(&l)
	l.CPU, l.Resident = chaos.ProcessorTime(pid)-before, chaos.Memory(pid, "VmRSS")
	if ended := r.command.Wait(); ended != nil {
		return l, fmt.Errorf("the load has failed: %w: %s", ended, r.errors)
	}
	return l, err
}

// Measured makes a load from begin to end.
func Measured(loader string, s *fixture.Stack, o Options) (Load, error) {
	r, err := Begin(loader, s, o)
	if err != nil {
		return Load{}, err
	}
	return r.Go()
}
