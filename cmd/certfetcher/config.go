package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/truststore"
	"github.com/certfetcher/certfetcher/output"
)

// loadConfig reads the configuration, with the faults that only show when its parts are held together. They are
// of the first part in the contract's order.
func loadConfig() (*config.Fetcher, config.Faults) {
	cfg, err := config.Load()
	faults, _ := err.(config.Faults)
	for _, m := range program.FindMisspelt(knownVariables()) {
		cfg.Warnings = append(cfg.Warnings, config.Fault{Variable: m.Name, Problem: m.Problem()})
	}
	return cfg, append(replacedInputs(cfg), faults...)
}

// knownVariables are those of all commands: one environment may be for several of them.
func knownVariables() []string {
	return slices.Concat(program.VariableNames(config.Variables), truststore.Names(), []string{"APP_UID", "APP_GID"})
}

// replacedInputs refuses an output directory in which a publication would take away what the next run needs.
func replacedInputs(cfg *config.Fetcher) (faults config.Faults) {
	for _, variable := range slices.Sorted(maps.Keys(cfg.Inputs)) {
		if path := cfg.Inputs[variable]; output.Replaces(cfg.Output.Dir, path) {
			faults = append(faults, config.NewFault("OUTPUT_PATH", fmt.Sprintf(
				"has %q, where a publication replaces or removes the file of %s, %q: want a directory of its own",
				cfg.Output.Dir, variable, path)))
		}
	}
	return faults
}

// loadMerge reads the post-processor's variables, if there are any; nil when there are none, or faults. A file that the
// sidecar publishes cannot be changed by merging as well: the one would put back what the other did.
func loadMerge(outputDir string) (*truststore.Config, config.Faults) {
	if !truststore.Wanted() {
		return nil, nil
	}
	var faults config.Faults
	add := func(variable, problem string) {
		faults = append(faults, config.Fault{Stage: enroll.StageClientConfiguration,
			Variable: variable, Problem: problem})
	}
	cfg, err := truststore.Load()
	var found truststore.Faults
	if errors.As(err, &found) {
		for _, fault := range found {
			add(fault.Variable, fault.Problem)
		}
	}
	check := func(variable, path string) {
		if files.Within(outputDir, path) {
			add(variable,
				fmt.Sprintf(
					"has %q, which would be changed by merging, and put back by the sidecar, "+
						"which publishes what is in OUTPUT_PATH; want a file elsewhere", path))
		}
	}
	if len(cfg.Truststores) > 1 {
		check("TRUSTSTORES_PATHS", cfg.Truststores[0].Path)
	}
	for _, c := range cfg.Keystores {
		check("KEYSTORE_DESTINATION_PATHS", c.Destination)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return &cfg, nil
}
