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
	return newApp(serving).Run(ctx, args, stdout, stderr)
}

// newApp returns the program's commands.
func newApp(serving func() bool) *program.App {
	serve := func(c *program.Call) int { return runServe(c, serving) }
	return &program.App{
		Name: "certservice",
		Short: "certservice has certificate requests signed by CMPv2 servers, over REST and mutual TLS. It is " +
			"configured by environment variables.",
		Default: "serve", Flags: []string{"check", "version"}, UsageCode: exitUsage, FailedCode: exitFailed,
		Commands: []*program.Command{
			{Name: "serve", Run: serve,
				Short: "run the service",
				Long: "has certificate requests signed by CMPv2 servers, over REST and mutual TLS, until a signal " +
					"ends it.",
				Details: writeVariables,
				ExitCodes: []program.ExitCode{{Code: exitOK, Meaning: "ended by a signal"},
					{Code: exitFailed, Meaning: "a fault in the configuration, or serving failed"}, wrongUsage,
					{Code: exitRefused, Meaning: "refused (policy check, token check)"},
					{Code: startup.ExitTooFewFiles, Meaning: "too few files may be open (RLIMIT_NOFILE)"}}},
			{Name: "check", Run: check,
				Short: "report all faults of the configuration, without serving",
				Long: "reports every fault of the environment and of the files that it names, one on a line. The " +
					"environment is that of certservice serve.",
				ExitCodes: []program.ExitCode{{Code: exitOK, Meaning: "no fault; there may be warnings"},
					{Code: exitFailed, Meaning: "a fault in the configuration"}, wrongUsage}},
			doctorCommand, policyCheck, policySchema, tokenCheck,
			{Name: "probe", Run: probe,
				Short: "ask the service at METRICS_ADDR whether it is ready",
				Long:  "asks the running service at METRICS_ADDR whether it is ready.",
				ExitCodes: []program.ExitCode{{Code: exitOK, Meaning: "it is"},
					{Code: exitFailed, Meaning: "it is not"},
					{Code: exitUsage, Meaning: "METRICS_ADDR is not set, or wrong usage"}}},
		},
	}
}

var wrongUsage = program.ExitCode{Code: exitUsage, Meaning: "wrong usage"}

func writeVariables(w io.Writer) error {
	if _, err := io.WriteString(w, "Environment variables\n"); err != nil {
		return err
	}
	return program.WriteUsage(w, variables)
}

// loadLogged reads the environment, and logs what is doubtful about it.
func loadLogged(stderr io.Writer) (settings, []program.Fault, *slog.Logger) {
	s, faults := loadSettings()
	log := s.log.Logger(stderr)
	program.LogMisspelt(log, program.VariableNames(variables))
	for _, warning := range s.warnings {
		log.Warn(program.NeedsAttention, "variable", warning.Variable, "error", warning.Problem)
	}
	return s, faults, log
}

// runServe is the command serve.
func runServe(c *program.Call, serving func() bool) int {
	s, faults, log := loadLogged(c.Stderr)
	for _, fault := range faults {
		log.Error("the environment has a fault", "variable", fault.Variable, "error", fault.Problem)
	}
	if len(faults) > 0 {
		return advise(c, s)
	}
	startup.SurvivePipes()
	serving()
	if err := serve(c.Context, s, log); err != nil {
		log.Error("certservice failed", "error", err.Error())
		return advise(c, s)
	}
	return exitOK
}

// advise tells people what to do about a failure, and returns its exit code.
func advise(c *program.Call, s settings) int {
	if s.log.ForPeople(c.Stderr) {
		fmt.Fprintln(c.Stderr, "To do: repair what the lines above say, and try it with certservice check, which "+
			"serves nothing. certservice help serve describes all variables.")
	}
	return exitFailed
}

// check prints every fault of the environment and of the files that it names, one on a line.
// Warnings are logged and change nothing.
func check(c *program.Call) int {
	s, faults, log := loadLogged(c.Stderr)
	inFiles := checkFiles(s, log)
	if len(faults)+len(inFiles) == 0 {
		return c.Print(func(w io.Writer) error {
			_, err := fmt.Fprintln(w, "the environment, the TLS identity and the CMP servers are valid")
			return err
		})
	}
	for _, fault := range faults {
		fmt.Fprintln(c.Stderr, fault)
	}
	for _, fault := range inFiles {
		fmt.Fprintln(c.Stderr, fault)
	}
	return exitFailed
}

// probe asks the running service whether it is ready.
func probe(c *program.Call) int {
	s, _ := loadSettings() // the service has reported the faults
	if s.metricsAddr == "" {
		fmt.Fprintln(c.Stderr,
			"certservice probe: METRICS_ADDR is not set, and the other port requires a client certificate")
		return exitUsage
	}
	err := program.Probe(c.Context, s.metricsAddr, "/readyz", func(status int) bool { return status == http.StatusOK })
	if err != nil {
		fmt.Fprintf(c.Stderr, "certservice probe: %v\n", err)
		return exitFailed
	}
	return exitOK
}
