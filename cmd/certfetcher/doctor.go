package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
)

const doctorUsage = `certfetcher doctor checks the deployment without requesting a certificate, and says
what to do about what it finds.

Usage: certfetcher doctor [-o text|json] [-uid N] [-gid N]
  -o           how the checks are printed; text without it
  -uid, -gid   numbers of the application's user and group: checks whether they will be able to read the files;
               APP_UID and APP_GID stand for them

Everything else it takes from the environment of the container that it runs in, as certfetcher --help describes it.
The exit code is that of the first failed check, and 0 when none failed.
`

// examine checks the deployment and prints what it found; its exit code is that of the first failed check.
func examine(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	format := flags.String("o", "text", "")
	uid := flags.String("uid", os.Getenv("APP_UID"), "")
	gid := flags.String("gid", os.Getenv("APP_GID"), "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, err := fmt.Fprint(stdout, doctorUsage)
		return printed(stderr, err)
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
			"certfetcher: %v; usage: certfetcher doctor [-o text|json] [-uid N] [-gid N], see "+
				"certfetcher doctor --help\n", err)
		return enroll.StageClientConfiguration.ExitCode()
	}
	setup, faults := readEnvironment(io.Discard) // faults are in the report
	report := doctor.Run(ctx, doctor.Options{
		Config: setup.config, Faults: faults, Reader: reader, UserAgent: userAgent(), Merge: setup.merge,
		Notify: setup.notify,
	})
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "certfetcher: %v\n", errInterrupted)
		return enroll.StageOther.ExitCode()
	}
	write := report.WriteText
	if *format == "json" {
		write = report.WriteJSON
	}
	if err := write(stdout); err != nil {
		return printed(stderr, err)
	}
	return report.ExitCode()
}
