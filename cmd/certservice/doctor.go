package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/certfetcher/certfetcher/internal/certservice/doctor"
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/program"
)

const doctorUsage = `certservice doctor checks the service's environment and files, its ports, and each CA: whether it can be
reached and trusted, and whether it accepts the secret. It asks for no certificate.

Usage: certservice doctor [-o text|json] [--wait DURATION]
  -o       how the checks are printed; text without it
  --wait   makes the checks again until none fails, or until a time such as 90s is over

It may run beside the service and before it, in the same environment.
Exit codes: 0 no check failed; 1 one failed; 2 wrong usage.
`

// runDoctor checks the service and prints what it found.
func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	format := flags.String("o", "text", "")
	wait := flags.Duration("wait", 0, "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, err := io.WriteString(stdout, doctorUsage)
		return exitCode(stderr, err)
	}
	if err == nil && (flags.NArg() > 0 || *format != "text" && *format != "json") {
		err = errors.New("-o is text or json, and there are no arguments")
	}
	if err != nil {
		fmt.Fprintf(stderr, "certservice doctor: %v; see certservice doctor --help\n", err)
		return exitUsage
	}
	report := checks.Wait(ctx, *wait, stderr, func(ctx context.Context) checks.Report {
		return doctor.Run(ctx, doctorOptions())
	})
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "certservice doctor: ended by a signal")
		return exitFailed
	}
	if err := report.Write(stdout, *format); err != nil {
		return exitCode(stderr, err)
	}
	return report.ExitCode()
}

// doctorOptions reads the environment as the service does.
func doctorOptions() doctor.Options {
	s, faults := loadSettings()
	warnings := s.warnings
	for _, m := range program.FindMisspelt(program.VariableNames(variables)) {
		warnings = append(warnings, program.Fault{Variable: m.Name, Problem: m.Problem()})
	}
	return doctor.Options{
		Faults: faults, Warnings: warnings, Files: s.files, Credentials: s.credentials,
		ServersPath: s.cmpServersPath, ResponseTrust: s.responseTrust, PolicyPath: s.policyPath, Tokens: s.tokens,
		CRLs: s.crls, HTTPSPort: s.httpsPort, MetricsAddress: s.metricsAddr, Connections: s.maxConnections,
		UserAgent: "certservice/" + program.Version(),
	}
}
