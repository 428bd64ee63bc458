// Command bench measures the built programs on loopback and writes docs/performance.md: runs of certfetcher beside the
// same job done by other programs, certservice under load with devca behind it, and how the cost of both grows.
//
// Its arguments are the names of the parts to measure, or of a group of them; none: all. With BENCH=short in the
// environment it measures less, and writes nothing. It ends with 1 where figures of one run do not go together, such as
// a cost that grows faster than what it is for.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const document = "docs/performance.md"

var program string // a certfetcher that make build has built

// install copies a certfetcher, as an image or a package does: the kernel maps what a linker wrote page by page, which
// takes a millisecond of a run. The copy stays in bin/bench, on the disk.
func install(from, version string) string {
	at := filepath.Join("bin", "bench", version, "certfetcher")
	fixture.Must(0, os.MkdirAll(filepath.Dir(at), 0o755))
	_ = os.Remove(at)
	fixture.Must(0, os.WriteFile(at, fixture.Must(os.ReadFile(from)), 0o755))
	return at
}

// parts are what can be measured alone, in the order of docs/performance.md.
var parts = []struct {
	group, name string
	measure     func(*bench)
}{
	{"run", "programs", (*bench).programs},
	{"run", "keytool", (*bench).keytool},
	{"run", "timeline", (*bench).timeline},
	{"versions", "versions", (*bench).versions},
	{"service", "load", (*bench).load},
	{"service", "processor", (*bench).processor},
	{"service", "sessions", (*bench).sessions},
	{"service", "policies", (*bench).policies},
	{"growth", "chains", (*bench).chains},
	{"growth", "names", (*bench).names},
	{"growth", "rules", (*bench).rules},
	{"growth", "sidecars", (*bench).sidecars},
	{"growth", "idle", (*bench).idle},
}

// bench is a run of this command.
type bench struct {
	dir    string // of the part's own
	given  int    // names in it
	short  bool
	faults []string

	mu    sync.Mutex
	later []func()
}

func main() {
	fixture.UseMemory() // as an emptyDir for keys: so that the figures are not those of this machine's disk
	program = install("bin/certfetcher", "now")
	b := &bench{short: os.Getenv("BENCH") == "short"}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		b.end()
		os.Exit(1)
	}()
	for _, name := range os.Args[1:] {
		known := false
		for _, part := range parts {
			known = known || name == part.name || name == part.group
		}
		if !known {
			fmt.Fprintf(os.Stderr, "no part of the benchmark is called %q\n", name)
			os.Exit(2)
		}
	}
	for _, part := range parts {
		wanted := os.Args[1:]
		if len(wanted) == 0 || slices.Contains(wanted, part.name) || slices.Contains(wanted, part.group) {
			b.measure(part.name, part.measure)
		}
	}
	for _, fault := range b.faults {
		fmt.Println("FAULT:", fault)
	}
	if len(b.faults) > 0 {
		os.Exit(1)
	}
}

// measure measures a part, in a directory that is gone afterwards.
func (b *bench) measure(name string, measure func(*bench)) {
	begin := time.Now()
	fmt.Printf("== %s\n", name)
	dir := fixture.Must(os.MkdirTemp("", "certfetcher-bench-"))
	b.dir = dir
	b.atEnd(func() { os.RemoveAll(dir) })
	defer b.end()
	measure(b)
	fmt.Printf("(%.0f s)\n", time.Since(begin).Seconds())
}

// atEnd has something stopped or removed at the end of the part, or when the command is interrupted.
func (b *bench) atEnd(stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.later = append(b.later, stop)
}

func (b *bench) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, stop := range slices.Backward(b.later) {
		stop()
	}
	b.later = nil
}

// newDir makes a directory for the part.
func (b *bench) newDir(name string) string {
	dir := filepath.Join(b.dir, name)
	fixture.Must(0, os.MkdirAll(dir, 0o700))
	return dir
}

// newName is the path of a directory that is not there yet.
func (b *bench) newName(what string) string {
	b.given++
	return filepath.Join(b.dir, fmt.Sprint(what, b.given))
}

// write prints a part of the document, and replaces it there, with the time and the commit of the measurement.
func (b *bench) write(part, content string) {
	fmt.Print(content)
	if !b.short {
		report.Write(document, part, content+"\nMeasured "+measured()+".\n")
	}
}

// draw writes a plot.
func (b *bench) draw(name string, plot report.Plot) {
	if !b.short {
		fixture.Must(0, os.WriteFile("docs/images/"+name+".svg", []byte(plot.SVG()), 0o644))
	}
}

// fault notes what is wrong with the figures. The others are measured all the same.
func (b *bench) fault(format string, args ...any) {
	b.faults = append(b.faults, fmt.Sprintf(format, args...))
}

// either is the one for a short benchmark, or the other one.
func either[T any](b *bench, short, long T) T {
	if b.short {
		return short
	}
	return long
}

// measured says when, of which commit, and on what.
var measured = sync.OnceValue(func() string {
	output := func(name string, args ...string) string {
		return strings.TrimSpace(string(fixture.Must(exec.Command(name, args...).Output())))
	}
	model := "processor"
	for line := range strings.Lines(string(fixture.Must(os.ReadFile("/proc/cpuinfo")))) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	commit := output("git", "describe", "--always", "--exclude", "*")
	if output("git", "status", "--porcelain", "*.go", "go.mod") != "" {
		commit += " with changes"
	}
	return fmt.Sprintf("on %s, commit %s, %d × %s, Linux %s, %s", time.Now().UTC().Format(time.DateOnly), commit,
		runtime.NumCPU(), model, output("uname", "-r"), output("go", "env", "GOVERSION"))
})
