// Package profile tells what certservice spends processor time on at saturation, by kind, and what it allocates for an
// enrolment; and what resumed TLS sessions save. The load comes from a process of its own.
//
// The program that is profiled is cmd/certservice of any source tree, also an older one, with one file more, which
// starts package runtime/pprof: testdata/hook.go. The real program has nothing of that.
package profile

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/test/fixture"
)

//go:embed testdata/hook.go
var hook []byte

// Build builds what Measure needs into the directory bin, from the source tree at root: devca, and certservice with the
// hook. Both are built as make build does.
func Build(root, bin string) error {
	root, err := filepath.Abs(root)
	if err == nil {
		bin, err = filepath.Abs(bin)
	}
	if err == nil {
		err = os.MkdirAll(bin, 0o755)
	}
	added := filepath.Join(bin, "hook.go")
	if err == nil {
		err = os.WriteFile(added, hook, 0o600)
	}
	if err != nil {
		return err
	}
	overlay := fixture.Must(json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "cmd", "certservice", "hook.go"): added}}))
	if err := os.WriteFile(filepath.Join(bin, "overlay.json"), overlay, 0o600); err != nil {
		return err
	}
	return errors.Join(goBuild(root, bin, "./cmd/devca"),
		goBuild(root, bin, "./cmd/certservice", "-tags", "nethttpomithttp2",
			"-overlay", filepath.Join(bin, "overlay.json")))
}

// BuildLoad builds the program that makes the load, of the source tree at root, and returns its path.
func BuildLoad(root, bin string) (string, error) {
	return filepath.Join(bin, "load"), goBuild(root, bin, "./test/bench/profile/load")
}

func goBuild(root, bin, pkg string, options ...string) error {
	arguments := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", bin + "/"}, options...)
	command := exec.Command("go", append(arguments, pkg)...)
	command.Dir, command.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if printed, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s in %s: %w\n%s", pkg, root, err, printed)
	}
	return nil
}

// Usage is what the profiled process used while it was profiled.
type Usage struct {
	CPU                time.Duration // user and system
	Allocations, Bytes uint64        // allocated on the heap
	Collections        uint32        // of garbage
}

// Result is what Measure has found.
type Result struct {
	Shares map[Kind]float64
	Usage
	Load
}

// Measure profiles certservice as Build has built it into bin, under a load. The directory is for files, and keeps the
// profile, cpu.pprof.
func Measure(bin, loader, dir string, o Options) (Result, error) {
	var r Result
	socket := filepath.Join(dir, "profile.sock")
	s, err := StartStack(bin, bin, dir, append([]string{"PROFILE_SOCKET=" + socket}, o.Environment...)...)
	if err != nil {
		return r, err
	}
	defer s.Stop()
	running, err := Begin(loader, s, o)
	if err != nil {
		return r, err
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	if r.Load, err = running.Go(); err != nil {
		return r, err
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return r, err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return r, err
	}
	line, profile, _ := bytes.Cut(answer, []byte("\n"))
	if err := json.Unmarshal(line, &r.Usage); err != nil {
		return r, fmt.Errorf("reading what certservice used: %w", err)
	}
	path := filepath.Join(dir, "cpu.pprof")
	if err := os.WriteFile(path, profile, 0o600); err != nil {
		return r, err
	}
	traces, err := exec.Command("go", "tool", "pprof", "-traces", path).Output()
	if err != nil {
		return r, fmt.Errorf("go tool pprof: %w", err)
	}
	r.Shares, err = Shares(bytes.NewReader(traces))
	return r, err
}

// Write prints a result as two small tables.
func (r Result) Write(w io.Writer) error {
	var text bytes.Buffer
	for _, kind := range Kinds {
		fmt.Fprintf(&text, "%-22s %5.1f %%\n", kind, 100*r.Shares[kind])
	}
	each := float64(max(1, r.Enrolments))
	fmt.Fprintf(&text, "%-22s %7.0f\n%-22s %7.1f KiB\n%-22s %7.0f µs\n", "allocations/enrolment",
		float64(r.Allocations)/each, "bytes/enrolment", float64(r.Bytes)/each/1024, "CPU/enrolment",
		float64(r.Usage.CPU.Microseconds())/each)
	_, err := fmt.Fprintf(w, "%s%s\n", text.String(), r.Load)
	return err
}

// Limits are variables of certservice: one client makes the load, and may have all of it.
var Limits = []string{"MAX_IN_FLIGHT=512", "MAX_IN_FLIGHT_PER_CLIENT=512"}

// StartStack starts devca, and certservice with Limits. The additional environment goes to certservice.
func StartStack(certservice, devca, dir string, environment ...string) (*fixture.Stack, error) {
	authority, entry, err := fixture.StartDevCA(devca, dir)
	if err != nil {
		return nil, err
	}
	s, err := fixture.StartCertService(certservice, dir, entry, slices.Concat(Limits, environment)...)
	if err != nil {
		authority.Stop()
		return nil, err
	}
	s.DevCA = authority
	return s, nil
}
