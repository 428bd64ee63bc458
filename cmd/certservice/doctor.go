package main

import (
	"context"

	"github.com/certfetcher/certfetcher/internal/certservice/doctor"
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/program"
)

var doctorCommand = &program.Command{Name: "doctor",
	Short: "check the configuration, the files and each CA, without asking for a certificate",
	Long: "checks the service's environment and files, its ports and limits, and each CA: whether it can be " +
		"reached and trusted, and whether it accepts the secret. It asks for no certificate, and says what to do " +
		"about what it finds.\n\nIt may run beside the service and before it, in the environment of certservice serve.",
	Flags: []program.Flag{program.OutputFlag, checks.WaitFlag},
	ExitCodes: []program.ExitCode{{Code: exitOK, Meaning: "no check failed; there may be warnings"},
		{Code: exitFailed, Meaning: "a check failed"}, wrongUsage},
	Examples: []string{"doctor", "doctor --wait 5m", "doctor -o json"},
	Run:      runDoctor}

func runDoctor(c *program.Call) int {
	return checks.RunCommand(c, "certservice", exitFailed, func(ctx context.Context) checks.Report {
		return doctor.Run(ctx, doctorOptions())
	})
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
