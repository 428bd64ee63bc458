// Command devca is a development certification authority that answers CMP over HTTP. It keeps everything in
// memory, makes its root anew at every start, and must never be used for production. It is configured
// by environment variables alone; --help lists them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; what it returns is the exit code: 0, 1 for a failure, 2 for a wrong configuration.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("devca", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return printed(stderr, writeUsage(stdout))
	case err != nil || flags.NArg() > 0:
		fmt.Fprintln(stderr, "devca: the flags are --help and --version; everything else is set by environment variables, see --help")
		return 2
	case *showVersion:
		_, err := fmt.Fprintf(stdout, "devca %s\n", versionText())
		return printed(stderr, err)
	}
	s, faults := loadSettings()
	if len(faults) > 0 {
		for _, fault := range faults {
			fmt.Fprintf(stderr, "devca: %s\n", fault)
		}
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx, s, s.newLogger(stderr)); err != nil {
		fmt.Fprintf(stderr, "devca: %v\n", err)
		return 1
	}
	return 0
}

// printed turns an error of writing to standard output into an exit code.
func printed(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "devca: writing to standard output: %v\n", err)
		return 1
	}
	return 0
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
