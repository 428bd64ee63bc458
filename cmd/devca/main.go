// Command devca is a development certification authority that answers CMP over HTTP. It keeps everything in
// memory, makes a new root at every start, and must never be used for production. It is configured
// by environment variables alone; --help lists them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/startup"
)

func main() {
	stop := startup.EndWithin(1)
	os.Exit(run(startup.Context, stop, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; what it returns is the exit code: 0, 1 for a failure, 2 for a wrong configuration.
// It ends with ctx. serving is called when it begins to look at ctx itself.
func run(ctx context.Context, serving func() bool, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("devca", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	showVersion := flags.Bool("version", false, "print the version and exit")
	if len(args) == 1 && args[0] == "probe" {
		return probe(ctx, stderr)
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return reportWrite(stderr, writeUsage(stdout))
	case err != nil || flags.NArg() > 0:
		fmt.Fprintln(stderr,
			"devca: the flags are --help and --version; everything else is set by environment variables, see --help")
		return 2
	case *showVersion:
		_, err := fmt.Fprintf(stdout, "devca %s\n", program.Version())
		return reportWrite(stderr, err)
	}
	s, faults := loadSettings()
	log := s.log.Logger(stderr)
	program.LogMisspelt(log, program.VariableNames(variables))
	if len(faults) > 0 {
		for _, fault := range faults {
			fmt.Fprintf(stderr, "devca: %s\n", fault.Error())
		}
		return 2
	}
	startup.SurvivePipes()
	serving()
	if err := serve(ctx, s, log); err != nil {
		fmt.Fprintf(stderr, "devca: %v\n", err)
		return 1
	}
	return 0
}

// reportWrite turns an error of writing to standard output into an exit code.
func reportWrite(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "devca: writing to standard output: %v\n", err)
		return 1
	}
	return 0
}

// probe asks the CA that runs beside it for an answer; any will do, because CMP is spoken by POST only.
func probe(ctx context.Context, stderr io.Writer) int {
	s, _ := loadSettings() // the CA has reported the faults
	if err := program.Probe(ctx, s.addr, "/", func(int) bool { return true }); err != nil {
		fmt.Fprintf(stderr, "devca probe: %v\n", err)
		return 1
	}
	return 0
}
