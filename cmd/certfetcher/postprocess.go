package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/certfetcher/certfetcher/internal/config"
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
