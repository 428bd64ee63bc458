package main

import (
	"log/slog"
	"os"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/notify"
)

// notifications makes what is configured to happen after a publication.
func notifications(cfg *config.Fetcher, log *slog.Logger) (notify.Config, config.Faults) {
	made, found := notify.New(cfg.Notify, notify.Options{UserAgent: userAgent(), Environ: os.Environ(), Log: log})
	merge, faults := newMerging(cfg.Output.Dir, log)
	if merge != nil {
		made.Prepare = merge
	}
	for _, fault := range found {
		faults = append(faults, config.NewFault(fault.Variable, fault.Problem))
	}
	return made, faults
}
