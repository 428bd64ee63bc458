package volume

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
		volume := filepath.Join(t.TempDir(), "volume")
		sidecars := []*running{}
		for range 2 {
			sidecars = append(sidecars, start(t, program(s, volume, nil, "OUTPUT_LAYOUT="+layout, "MODE=sidecar")))
		}
		for _, p := range sidecars {
			require.True(t, p.await("the next renewal is planned"), p.printed())
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
				serial, err := readByTheRule(volume, layout)
				if errors.Is(err, fs.ErrNotExist) { // more than eight publications during one read
					again.Add(1)
					continue
				}
				assert.NoError(t, err)
				reads.Add(1)
				if serial != last {
					last = serial
					sets.Add(1)
				}
			}
		})
		rounds := chaos.Amount(2, 8, 30)
		for range 3 {
			runs.Go(func() {
				for range rounds {
					code, out := once(t, program(s, volume, nil, "OUTPUT_LAYOUT="+layout, "FORCE_ENROLL=true"))
					assert.Zero(t, code, out)
				}
			})
		}
		for range rounds {
			for _, p := range sidecars {
				assert.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
			}
			time.Sleep(50 * time.Millisecond)
		}
		runs.Wait()
		for _, p := range sidecars {
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
			assert.Zero(t, p.wait(deadline), p.printed())
		}
		close(stop)
		reader.Wait()
		requireSet(t, volume, layout)
		chaos.Record(t, layout,
			fmt.Sprintf(
				"%s layout: two sidecars that are asked to renew %d times, and three times %d "+
					"runs that fetch again, on one volume",
				layout, rounds, rounds),
			fmt.Sprintf(
				"all succeeded; a reader read %d times, saw %d sets, and each was whole; it had "+
					"to begin again %d times, after more than eight publications at once",
				reads.Load(), sets.Load(), again.Load()))
	}
}

// readByTheRule reads through ..data resolved once, or the one file that holds key and chain.
func readByTheRule(volume, layout string) (serial string, err error) {
	var pair tls.Certificate
	if layout == "symlink" {
		dir, linkErr := filepath.EvalSymlinks(filepath.Join(volume, "..data"))
		if linkErr != nil {
			return "", linkErr
		}
		pair, err = tls.LoadX509KeyPair(filepath.Join(dir, "keystore.pem"), filepath.Join(dir, "key.pem"))
	} else {
		combined, readErr := os.ReadFile(filepath.Join(volume, "keystore-combined.pem"))
		if readErr != nil {
			return "", readErr
		}
		pair, err = tls.X509KeyPair(combined, combined)
	}
	if err != nil {
		return "", err
	}
	return pair.Leaf.SerialNumber.String(), nil
}

// A volume that goes away under a sidecar is filled again when it is back, and the sidecar lives on.
func TestGone_volumeUnderASidecar(t *testing.T) {
	s := startService(t)
	for _, layout := range layouts {
		volume := mountMemory(t, "size=1m")
		p := start(t, program(s, volume, nil, "OUTPUT_LAYOUT="+layout, "MODE=sidecar"))
		require.True(t, p.await("the next renewal is planned"), p.printed())
		certificate := requireSet(t, volume, layout)
		began := time.Now()
		require.NoError(t, syscall.Unmount(volume, syscall.MNT_DETACH))
		require.NoError(t, syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=1m"))
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP)) // no kernel tells of a mount
		whole := func() bool {
			if _, err := readByTheRule(volume, layout); err != nil && !errors.Is(err, fs.ErrNotExist) {
				assert.NoError(t, err)
			}
			_, err := set.ReadPEM(volume) // in place, the last file comes after that of the rule
			return err == nil && len(set.LeftBehind(volume, layout, []string{"PEM"})) == 0
		}
		require.Eventually(t, whole, deadline, 5*time.Millisecond, p.printed())
		took := time.Since(began)
		assert.NotEqual(t, certificate, requireSet(t, volume, layout), "it renewed")
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
		assert.Zero(t, p.wait(deadline), p.printed())
		chaos.Record(t, layout, layout+
			" layout: the volume of a sidecar is unmounted, and an empty one mounted in its place",
			fmt.Sprintf("at the next renewal the new volume holds a whole set, here after %.2f s", took.Seconds()))
	}
}
