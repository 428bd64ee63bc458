package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/output"
)

// loadConfig reads the configuration, with the faults that only show when its parts are held together. They are
// of the first part in the contract's order.
func loadConfig() (*config.Fetcher, config.Faults) {
	cfg, err := config.Load()
	faults, _ := err.(config.Faults)
	return cfg, append(replacedInputs(cfg), faults...)
}

// replacedInputs refuses an output directory in which a publication would take away what the next run needs.
func replacedInputs(cfg *config.Fetcher) (faults config.Faults) {
	for _, variable := range slices.Sorted(maps.Keys(cfg.Inputs)) {
		if path := cfg.Inputs[variable]; output.Replaces(cfg.Output.Dir, path) {
			faults = append(faults, config.NewFault("OUTPUT_PATH", fmt.Sprintf(
				"has %q, where a publication replaces or removes the file of %s, %q: want a directory of its own", cfg.Output.Dir, variable, path)))
		}
	}
	return faults
}
