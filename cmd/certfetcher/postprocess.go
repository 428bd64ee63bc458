package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// postprocess merges truststores and swaps keystores once, as the ONAP post-processor did. Its variables
// and exit codes are that program's.
func postprocess(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if asksForHelp(args[0]) {
			return printed(stderr, postprocessUsage(stdout))
		}
		fmt.Fprintln(stderr, "certfetcher: postprocess takes no arguments, it is configured by environment variables, see certfetcher postprocess --help")
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
	log.Error("certfetcher postprocess failed", "reason", err.Error(), "exit_code", code)
	writeTerminationMessage(settings.TerminationMessagePath, "postprocess: "+err.Error(), log)
	return code
}

func postprocessUsage(w io.Writer) error {
	_, err := fmt.Fprint(w, `certfetcher postprocess merges truststores and swaps keystores, as the ONAP post-processor did. A second run changes nothing.

`)
	if err != nil {
		return err
	}
	return truststore.WriteUsage(w)
}

// merging does the post-processor's work after each publication of a sidecar, before anybody else is told, and at a
// start at which nothing was published: whoever merged into a volume that lives no longer than the container would
// miss it otherwise.
type merging struct {
	config truststore.Config
	log    *slog.Logger
	// changed is called when there was something to do though nothing was published.
	changed func()
}

// Kind is how logs and metrics call it.
func (*merging) Kind() string { return "postprocess" }

// Notify merges; with nothing to do it changes nothing.
func (m *merging) Notify(_ context.Context, event notify.Event) error {
	result, err := truststore.Run(m.config, m.log)
	if event.Kept && result.Changed() {
		m.changed()
	}
	return err
}

// newMerging reads the post-processor's variables, if there are any; nil when there are none, or faults. A file that
// the sidecar publishes cannot be changed by it as well: the one would put back what the other did.
func newMerging(outputDir string, log *slog.Logger) (*merging, config.Faults) {
	if !truststore.Wanted() {
		return nil, nil
	}
	var faults config.Faults
	add := func(variable, problem string) {
		faults = append(faults, config.Fault{Part: config.PartClient, Variable: variable, Problem: problem})
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
			add(variable, fmt.Sprintf("has %q, which would be changed by merging, and put back by the sidecar, which publishes what is in OUTPUT_PATH; want a file elsewhere", path))
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
	return &merging{config: cfg, log: log}, nil
}
