package truststore

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRun_secondRunChangesNothing(t *testing.T) {
	for _, kind := range kinds {
		name := "base." + kind
		p := newPlace(t, name, "="+kind+" a=0", "other.jks", "=jks a=1", "new", "new", "app", "old")
		cfg := p.copying(p.merge(name, "other.jks"), "new", "app", "new", "none/fresh")
		p.run(cfg)
		first := p.listing()

		// A later clock shows any file that is written again, even with the same content.
		cfg.Now = func() time.Time { return fixedTime.Add(time.Hour) }
		steps := 0
		count := func(string, string) error { steps++; return nil }
		result, err := newRun(cfg, count).do(cfg, noLog)

		require.NoError(t, err, kind)
		assert.Equal(t, Result{}, result, kind)
		assert.Zero(t, steps, kind) // so that it needs no right to write, either
		assert.Equal(t, first, p.listing(), kind)
	}
}

// An init container and a sidecar may merge at the same moment. Neither fails, and the backup stays the first
// run's, through the next renewal too.
func TestRun_severalAtOnce_workOneAfterTheOther(t *testing.T) {
	for round := range 20 {
		p, cfg := newScene(t)
		original := p.read("base.jks")
		var runs sync.WaitGroup
		for range 4 {
			runs.Go(func() {
				_, err := Run(cfg, noLog)
				assert.NoError(t, err, round)
			})
		}
		runs.Wait()
		p.putAll("other.pem", "=pem 2", "key.p12", "newer")
		p.run(cfg)
		assert.Equal(t, original, p.read("base.jks.bak"), round)
		assert.Equal(t, "old", string(p.read("app.p12.bak")), round)
	}
}
