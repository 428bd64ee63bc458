// Command certservice takes certificate requests over REST and mutual TLS and has them signed by
// CMPv2 servers. It replaces the ONAP CertService with the same files and environment; --help
// lists the variables.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/startup"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	stop := startup.EndWithin(exitFailed)
	os.Exit(run(startup.Context, stop, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code.
// It ends with ctx. serving is called when it begins to watch ctx itself.
func run(ctx context.Context, serving func() bool, args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "probe" {
		return probe(ctx, stderr)
	}
	if len(args) > 0 {
		switch args[0] {
		case "policy":
			return runPolicy(args[1:], stdout, stderr)
		case "doctor":
			return runDoctor(ctx, args[1:], stdout, stderr)
		case "token":
			return runToken(args[1:], stdout, stderr)
		}
	}
	check := false
	done, err := program.ParseFlags("certservice", args, &check, stdout, writeUsage)
	switch {
	case done:
		return exitCode(stderr, err)
	case err != nil:
		fmt.Fprintln(stderr, "certservice: the flags are --check, --help and --version; "+
			"everything else is set by environment variables, see --help")
		return exitUsage
	}

	s, faults := loadSettings()
	log := s.log.Logger(stderr)
	program.LogMisspelt(log, program.VariableNames(variables))
	for _, warning := range s.warnings {
		log.Warn(program.NeedsAttention, "variable", warning.Variable, "error", warning.Problem)
	}
	if check {
		return checkAll(s, faults, log, stdout, stderr)
	}
	for _, fault := range faults {
		log.Error("the environment has a fault", "variable", fault.Variable, "error", fault.Problem)
	}
	if len(faults) > 0 {
		return exitFailed
	}
	startup.SurvivePipes()
	serving()
	if err := serve(ctx, s, log); err != nil {
		log.Error("certservice failed", "error", err.Error())
		return exitFailed
	}
	return exitOK
}

// checkAll prints every fault of the environment and of the files that it names, one on a line.
// Warnings are logged and change nothing.
func checkAll(s settings, faults []program.Fault, log *slog.Logger, stdout, stderr io.Writer) int {
	inFiles := checkFiles(s, log)
	if len(faults)+len(inFiles) == 0 {
		_, err := fmt.Fprintln(stdout, "the environment, the TLS identity and the CMP servers are valid")
		return exitCode(stderr, err)
	}
	for _, fault := range faults {
		fmt.Fprintln(stderr, fault)
	}
	for _, fault := range inFiles {
		fmt.Fprintln(stderr, fault)
	}
	return exitFailed
}

// exitCode turns an error of writing to standard output, mostly a closed pipe, into an exit code.
func exitCode(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "certservice: writing to standard output: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// probe asks the running service whether it is ready.
func probe(ctx context.Context, stderr io.Writer) int {
	s, _ := loadSettings() // the service has reported the faults
	if s.metricsAddr == "" {
		fmt.Fprintln(stderr,
			"certservice probe: METRICS_ADDR is not set, and the other port requires a client certificate")
		return exitUsage
	}
	err := program.Probe(ctx, s.metricsAddr, "/readyz", func(status int) bool { return status == http.StatusOK })
	if err != nil {
		fmt.Fprintf(stderr, "certservice probe: %v\n", err)
		return exitFailed
	}
	return exitOK
}
