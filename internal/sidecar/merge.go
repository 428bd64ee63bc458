package sidecar

import (
	"context"
	"log/slog"

	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// merging does the post-processor's work after each publication, before the application is notified, and at a start at
// which nothing was published: a truststore on a volume that lives no longer than the container would miss it
// otherwise.
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
