package volume

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
)

// Several init containers and sidecars work on one volume at the same time. A reader that keeps to the layout's rule
// never sees a mixture.
func TestSeveral_onOneVolume(t *testing.T) {
	s := start(t)
	for _, layout := range chaos.Layouts {
		v := on(t, s, layout, "PEM", "P12", "JKS")
		sidecars := []*chaos.Process{v.Sidecar(), v.Sidecar()}
		reads, sets, again, last := 0, 0, 0, ""
		endReading := chaos.Repeat(time.Millisecond, func() {
			leaf, err := set.ReadCarefully(v.Path, layout, "P12", "JKS")
			if errors.Is(err, fs.ErrNotExist) { // more than eight publications during one read
				again++
			} else if assert.NoError(t, err) {
				reads++
				if serial := leaf.SerialNumber.String(); serial != last {
					last = serial
					sets++
				}
			}
		})
		rounds := chaos.Amount(2, 8, 30)
		var runs sync.WaitGroup
		for range 3 {
			runs.Go(func() {
				for range rounds {
					v.Publish(chaos.Force)
				}
			})
		}
		for range rounds {
			for _, p := range sidecars {
				p.Signal(t, syscall.SIGHUP)
			}
			time.Sleep(50 * time.Millisecond)
		}
		runs.Wait()
		for _, p := range sidecars {
			p.End(t)
		}
		endReading()
		v.Set()
		chaos.Record(t, layout, layout, rounds, rounds, reads, sets, again)
	}
}

// A volume that goes away under a sidecar is filled again when it is back, and the sidecar lives on.
func TestGone_volumeUnderASidecar(t *testing.T) {
	s := start(t)
	for _, layout := range chaos.Layouts {
		v := inMemory(t, s, layout, "size=1m")
		p := v.Sidecar()
		before := v.Set()
		began := time.Now()
		require.NoError(t, syscall.Unmount(v.Path, syscall.MNT_DETACH))
		require.NoError(t, syscall.Mount("tmpfs", v.Path, "tmpfs", 0, "size=1m"))
		p.Signal(t, syscall.SIGHUP) // no kernel tells of a mount
		renewed := func() bool {
			_, err := set.ReadCarefully(v.Path, layout)
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, set.ErrNothing) {
				assert.NoError(t, err)
			}
			serial, err := set.Read(v.Path, v.Types) // in place, the last file comes after that of the rule
			return err == nil && serial != before && len(set.LeftBehind(v.Path, layout, v.Types)) == 0
		}
		require.Eventually(t, renewed, chaos.Deadline, 5*time.Millisecond, p.Printed())
		took := time.Since(began)
		p.End(t)
		chaos.Record(t, layout, layout, took.Seconds())
	}
}
