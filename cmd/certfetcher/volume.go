package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/internal/sidecar"
)

// exitNotValid is the exit code of a probe that finds no valid certificate, and of an inspection of nothing.
const exitNotValid = 1

const (
	probeUsage = `certfetcher probe ends with exit code 0 when the volume holds a valid certificate in all
configured files, and otherwise with 1 and the reason. It takes no arguments and uses no network.

Usage: certfetcher probe
`
	inspectUsage = `certfetcher inspect prints what a volume holds, without its secrets.

Usage: certfetcher inspect [dir] [-o text|json]
  dir   the directory to look at; that of OUTPUT_PATH without it
  -o    how it is printed; text without it

The next renewal is the one that a sidecar with the same environment plans when it finds this volume; one asked for, or
tried again after a failure, comes at another time. The exit code is 1 when nothing is there.
`
)

// probe tells by its exit code whether the volume of the configuration holds a valid certificate, and else in
// one line why it does not.
func probe(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && asksForHelp(args[0]) {
		_, err := fmt.Fprint(stdout, probeUsage)
		return printed(stderr, err)
	}
	err := errors.New("probe takes no arguments, it is configured by environment variables")
	if len(args) == 0 {
		var cfg *config.Fetcher
		if cfg, err = config.Load(); err == nil {
			err = enroll.Check(cfg.Settings, time.Now())
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "certfetcher: %v\n", err)
		return exitNotValid
	}
	return 0
}

// inspectVolume prints what is in a directory, by default that of the configuration.
func inspectVolume(args []string, stdout, stderr io.Writer) int {
	dir, format, err := inspectArguments(args)
	if errors.Is(err, flag.ErrHelp) {
		_, err := fmt.Fprint(stdout, inspectUsage)
		return printed(stderr, err)
	}
	// Whatever is wrong with the environment, which may be another container's, what is there can be shown.
	cfg, faults := loadConfig()
	if dir == "" {
		dir = cfg.Output.Dir
		if at := slices.IndexFunc(faults, func(f config.Fault) bool { return f.Variable == "OUTPUT_PATH" }); at >= 0 &&
			err == nil {
			err = fmt.Errorf("no directory is named, and %w", faults[at])
		}
	}
	var report *inspect.Report
	if err == nil {
		report, err = inspect.Dir(dir)
	}
	if err != nil {
		fmt.Fprintf(stderr, "certfetcher: %v\n", err)
		return exitNotValid
	}
	now := time.Now()
	if c := report.Certificate; c != nil {
		var due time.Time
		// Where the environment is wrong about it, the moment is not known.
		if !slices.ContainsFunc(faults, func(f config.Fault) bool { return strings.HasPrefix(f.Variable, "RENEW_") }) {
			due = cfg.Sidecar.Due(sidecar.Certificate{NotBefore: c.NotBefore, NotAfter: c.NotAfter})
		}
		report.Plan(now, due)
		if record := enroll.ReadRecord(dir, c.Leaf()); record != nil {
			report.Requested = (*inspect.Requested)(&record.Request)
		}
	}
	if format == "json" {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return printed(stderr, encoder.Encode(report))
	}
	return printed(stderr, report.WriteText(stdout, now))
}

// inspectArguments reads the flag before and after the directory.
func inspectArguments(args []string) (dir, format string, err error) {
	flags := flag.NewFlagSet("inspect", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&format, "o", "text", "")
	if err = flags.Parse(args); err == nil && flags.NArg() > 0 {
		dir = flags.Arg(0)
		err = flags.Parse(flags.Args()[1:])
	}
	if errors.Is(err, flag.ErrHelp) {
		return "", "", err
	}
	if err != nil || flags.NArg() > 0 || format != "text" && format != "json" {
		return "", "", errors.New("the command is inspect [dir] [-o text|json]")
	}
	return dir, format, nil
}
