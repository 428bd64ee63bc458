// Command certservice takes certificate requests over REST and mutual TLS and has them signed by CMPv2
// servers. It takes the place of the ONAP CertService with the same files and environment; --help lists
// the variables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
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

// run is the program; what it returns is the exit code.
// It ends with ctx. serving is called when it begins to look at ctx itself.
func run(ctx context.Context, serving func() bool, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("certservice", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	showVersion := flags.Bool("version", false, "")
	check := flags.Bool("check", false, "")
	if len(args) == 1 && args[0] == "probe" {
		return probed(ctx, stderr)
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return printed(stderr, writeUsage(stdout))
	case err != nil || flags.NArg() > 0:
		fmt.Fprintln(stderr, "certservice: the flags are --check, --help and --version; everything else is set by environment variables, see --help")
		return exitUsage
	case *showVersion:
		_, err := fmt.Fprintf(stdout, "certservice %s\n", program.Version())
		return printed(stderr, err)
	}

	s, faults := loadSettings()
	program.LogMisspelt(s.log.Logger(stderr), program.VariableNames(&environment{}))
	if *check {
		return checked(s, faults, stdout, stderr)
	}
	log := s.log.Logger(stderr)
	for _, fault := range faults {
		log.Error("the environment has a fault", "variable", fault.Variable, "problem", fault.Problem)
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

// checked prints every fault of the environment and of the files that it names, one on a line. Warnings are
// logged and change nothing.
func checked(s settings, environment []program.Fault, stdout, stderr io.Writer) int {
	var faults []string
	for _, fault := range environment {
		faults = append(faults, fault.Error())
	}
	faults = append(faults, checkFiles(s, s.log.Logger(stderr))...)
	if len(faults) == 0 {
		_, err := fmt.Fprintln(stdout, "the environment, the TLS identity and the CMP servers are valid")
		return printed(stderr, err)
	}
	for _, fault := range faults {
		fmt.Fprintln(stderr, fault)
	}
	return exitFailed
}

// printed turns an error of writing to standard output, a closed pipe mostly, into an exit code.
func printed(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "certservice: writing to standard output: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// probed asks the service that runs beside it how it is.
func probed(ctx context.Context, stderr io.Writer) int {
	s, _ := loadSettings() // the service has reported the faults
	if s.metricsAddr == "" {
		fmt.Fprintln(stderr, "certservice probe: METRICS_ADDR is not set, and the other port asks for a client certificate")
		return exitUsage
	}
	err := program.Probe(ctx, s.metricsAddr, "/readyz", func(status int) bool { return status == http.StatusOK })
	if err != nil {
		fmt.Fprintf(stderr, "certservice probe: %v\n", err)
		return exitFailed
	}
	return exitOK
}
