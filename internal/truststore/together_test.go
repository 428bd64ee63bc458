package truststore

import (
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An init container and a sidecar may merge at the same moment. Neither fails, and the backup stays the first
// run's, through the next renewal too.
func TestRun_severalAtOnce_workOneAfterTheOther(t *testing.T) {
	for round := range 20 {
		p := newPlace(t)
		original := jks(t, trusted(t, "a", 0)...)
		p.write("base.jks", original)
		p.write("other.pem", pemOf(1))
		p.write("new.p12", []byte("new"))
		p.write("app.p12", []byte("old"))
		cfg := p.merge("base.jks", "other.pem")
		cfg.Keystores = p.copying("new.p12", "app.p12").Keystores

		errs := make([]error, 4)
		var runs sync.WaitGroup
		for i := range errs {
			runs.Go(func() { _, errs[i] = Run(cfg, slog.New(slog.DiscardHandler)) })
		}
		runs.Wait()
		for _, err := range errs {
			require.NoError(t, err, round)
		}
		p.write("other.pem", pemOf(2))
		p.write("new.p12", []byte("newer"))
		p.run(cfg)
		assert.Equal(t, string(original), string(p.read("base.jks.bak")), round)
		assert.Equal(t, "old", string(p.read("app.p12.bak")), round)
	}
}
