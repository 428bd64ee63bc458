package volume

import (
	"bytes"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
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
	s := startService(t)
	for _, layout := range layouts {
		volume := t.TempDir() + "/volume"
		sidecars := []*chaos.Process{}
		for range 2 {
			sidecars = append(sidecars, chaos.Start(t, program(s, volume, layout, nil, "MODE=sidecar")))
		}
		for _, p := range sidecars {
			require.True(t, p.Await("the next renewal is planned"), p.Printed())
		}
		stop := make(chan struct{})
		var reads, sets, again atomic.Int64
		var reader, runs sync.WaitGroup
		reader.Go(func() {
			last := ""
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				leaf, err := set.ReadCarefully(volume, layout)
				if errors.Is(err, fs.ErrNotExist) { // more than eight publications during one read
					again.Add(1)
					continue
				}
				if !assert.NoError(t, err) {
					return
				}
				reads.Add(1)
				if serial := leaf.SerialNumber.String(); serial != last {
					last = serial
					sets.Add(1)
				}
			}
		})
		rounds := chaos.Amount(2, 8, 30)
		for range 3 {
			runs.Go(func() {
				for range rounds {
					publish(t, s, volume, layout, force)
				}
			})
		}
		for range rounds {
			for _, p := range sidecars {
				assert.NoError(t, p.Process.Signal(syscall.SIGHUP))
			}
			time.Sleep(50 * time.Millisecond)
		}
		runs.Wait()
		for _, p := range sidecars {
			p.End(t)
		}
		close(stop)
		reader.Wait()
		requireSet(t, volume, layout)
		chaos.Record(t, layout, layout, rounds, rounds, reads.Load(), sets.Load(), again.Load())
	}
}

// A volume that goes away under a sidecar is filled again when it is back, and the sidecar lives on.
func TestGone_volumeUnderASidecar(t *testing.T) {
	s := startService(t)
	for _, layout := range layouts {
		volume := mountMemory(t, "size=1m")
		p := chaos.Start(t, program(s, volume, layout, nil, "MODE=sidecar"))
		require.True(t, p.Await("the next renewal is planned"), p.Printed())
		certificate := requireSet(t, volume, layout)
		began := time.Now()
		require.NoError(t, syscall.Unmount(volume, syscall.MNT_DETACH))
		require.NoError(t, syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=1m"))
		p.Signal(t, syscall.SIGHUP) // no kernel tells of a mount
		renewed := func() bool {
			_, err := set.ReadCarefully(volume, layout)
			assert.True(t, err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, set.ErrNothing), err)
			leaf, err := set.ReadPEM(volume) // in place, the last file comes after that of the rule
			return err == nil && !bytes.Equal(leaf.Raw, certificate) &&
				len(set.LeftBehind(volume, layout, []string{"PEM"})) == 0
		}
		require.Eventually(t, renewed, chaos.Deadline, 5*time.Millisecond, p.Printed())
		took := time.Since(began)
		p.End(t)
		chaos.Record(t, layout, layout, took.Seconds())
	}
}
