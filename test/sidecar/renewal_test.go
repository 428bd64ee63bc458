package sidecar

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// renewals in a row, each of its own accord.
const renewals = 6

// startStack runs certservice and devca, whose certificates live for the given time.
func startStack(t *testing.T, dir, life string) *fixture.Stack {
	t.Helper()
	s := fixture.Must(fixture.StartStack(binDir, dir, "DEVCA_VALIDITY="+life))
	t.Cleanup(s.Stop)
	return s
}

func TestSidecar_renewalsInARow_underAReader(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"symlink", "inplace"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := startStack(t, t.TempDir(), "20s")
			volume := filepath.Join(t.TempDir(), "volume")
			p := run(t, volume, append(environment(s.URL, s.Dir, volume), "RENEW_AT=3%",
				"OUTPUT_LAYOUT="+layout, "OUTPUT_TYPE=P12,JKS,PEM"))
			p.await(1, planned)
			r := startReader(volume, layout == "symlink")
			for n := 1; n <= renewals; n++ {
				p.await(n, updated)
			}
			p.await(renewals+1, planned)
			p.end()
			r.check(t, renewals)
			assert.Zero(t, p.count(anew))
			assert.Zero(t, p.count(putBack), "its own publications disturb nobody")
		})
	}
}
