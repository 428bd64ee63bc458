package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// exitNotValid is the exit code of a probe that finds no
// valid certificate, and of an inspection of nothing.
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

// probe tells by its exit code whether the volume of the configuration holds a valid certificate,
// and else in one line why it does not.
func probe(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && asksForHelp(args[0]) {
		_, err := fmt.Fprint(stdout, probeUsage)
		return exitCodeOf(stderr, err)
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
		return exitCodeOf(stderr, err)
	}
	// Whatever is wrong with the environment, which may be
	// another container's, what is there can be shown.
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
		return exitCodeOf(stderr, encoder.Encode(report))
	}
	return exitCodeOf(stderr, report.WriteText(stdout, now))
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

const doctorUsage = `certfetcher doctor checks the deployment without requesting a certificate, and says
what to do about what it finds.

Usage: certfetcher doctor [-o text|json] [--wait DURATION] [-uid N] [-gid N]
  -o           how the checks are printed; text without it
  --wait       makes the checks again until none fails, or until a time such as 90s is over
  -uid, -gid   numbers of the application's user and group: checks whether they will be able to read the files;
               APP_UID and APP_GID stand for them

Everything else it takes from the environment of the container that it runs in, as certfetcher --help describes it.
The exit code is that of the first failed check, and 0 when none failed.
`

// runDoctor checks the deployment and prints what it found;
// its exit code is that of the first failed check.
func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	format := flags.String("o", "text", "")
	wait := flags.Duration("wait", 0, "")
	uid := flags.String("uid", os.Getenv("APP_UID"), "")
	gid := flags.String("gid", os.Getenv("APP_GID"), "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, err := fmt.Fprint(stdout, doctorUsage)
		return exitCodeOf(stderr, err)
	}
	reader, readerErr := doctor.ParseReader(*uid, *gid)
	if err == nil {
		err = readerErr
	}
	if err == nil && (flags.NArg() > 0 || *format != "text" && *format != "json") {
		err = errors.New("-o is text or json, and there are no arguments")
	}
	if err != nil {
		fmt.Fprintf(stderr,
			"certfetcher: %v; usage: certfetcher doctor [-o text|json] [--wait DURATION] [-uid N] [-gid N], see "+
				"certfetcher doctor --help\n", err)
		return enroll.StageClientConfiguration.ExitCode()
	}
	report := checks.Wait(ctx, *wait, stderr, func(ctx context.Context) checks.Report {
		setup, faults := readEnvironment(io.Discard) // faults are in the report
		return doctor.Run(ctx, doctor.Options{
			Config: setup.config, Faults: faults, Reader: reader, UserAgent: userAgent(), Merge: setup.merge,
			Notify: setup.notify,
		})
	})
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "certfetcher: %v\n", errInterrupted)
		return enroll.StageOther.ExitCode()
	}
	if err := report.Write(stdout, *format); err != nil {
		return exitCodeOf(stderr, err)
	}
	return report.ExitCode()
}

// postprocess merges truststores and swaps keystores once, as the ONAP post-processor did. Its
// variables and exit codes are that program's.
func postprocess(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if asksForHelp(args[0]) {
			return exitCodeOf(stderr, postprocessUsage(stdout))
		}
		fmt.Fprintln(stderr,
			"certfetcher: postprocess takes no arguments, it is configured by environment "+
				"variables, see certfetcher postprocess --help")
		return truststore.ExitCode(errors.New("wrong usage"))
	}
	settings, _ := config.Load() // the log's settings are read even when this container is for nothing else
	log := settings.Log.Logger(stderr)
	loaded.Store(&setup{config: settings, log: log})
	program.LogMisspelt(log, knownVariables())
	cfg, err := truststore.Load()
	if err == nil {
		_, err = truststore.Run(cfg, log)
	}
	if err == nil {
		return 0
	}
	code := truststore.ExitCode(err)
	log.Error("certfetcher postprocess failed", "error", err.Error(), "exit_code", code)
	writeTerminationMessage(settings.TerminationMessagePath, "postprocess: "+err.Error(), log)
	return code
}

func postprocessUsage(w io.Writer) error {
	_, err := fmt.Fprint(w,
		`certfetcher postprocess merges truststores and swaps keystores, as the ONAP post-processor did. A second run
changes nothing.

`)
	if err != nil {
		return err
	}
	return truststore.WriteUsage(w)
}
