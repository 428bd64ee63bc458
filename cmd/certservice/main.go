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
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; what it returns is the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("certservice", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	showVersion := flags.Bool("version", false, "")
	check := flags.Bool("check", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return printed(stderr, writeUsage(stdout))
	case err != nil || flags.NArg() > 0:
		fmt.Fprintln(stderr, "certservice: the flags are --check, --help and --version; everything else is set by environment variables, see --help")
		return exitUsage
	case *showVersion:
		_, err := fmt.Fprintf(stdout, "certservice %s\n", versionText())
		return printed(stderr, err)
	}

	s, faults := loadSettings()
	if *check {
		return checked(s, faults, stdout, stderr)
	}
	log := newLogger(stderr, s)
	for _, fault := range faults {
		log.Error("the environment has a fault", "fault", fault)
	}
	if len(faults) > 0 {
		return exitFailed
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx, s, log); err != nil {
		log.Error("certservice failed", "error", err.Error())
		return exitFailed
	}
	return exitOK
}

// checked prints every fault of the environment and of the files that it names, one on a line. Warnings are
// logged and change nothing.
func checked(s settings, faults []string, stdout, stderr io.Writer) int {
	faults = append(faults, checkFiles(s, newLogger(stderr, s))...)
	if len(faults) == 0 {
		_, err := fmt.Fprintln(stdout, "the environment, the TLS identity and the CMP servers are valid")
		return printed(stderr, err)
	}
	for _, fault := range faults {
		fmt.Fprintln(stderr, fault)
	}
	return exitFailed
}

func newLogger(w io.Writer, s settings) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.logLevel}
	if s.logText {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// printed turns an error of writing to standard output, a closed pipe mostly, into an exit code.
func printed(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "certservice: writing to standard output: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// versionText is the version that was linked in, or that of the module when it was built by go install.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
