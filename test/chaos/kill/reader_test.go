//go:build linux && amd64

package kill

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos/set"
)

// readers read the PEM files of a volume for as long as certfetcher works on it. The careful one does as
// docs/applications.md says: it resolves ..data once and reads below that, or in the inplace layout opens the one file
// that holds key and chain. The careless one opens the visible names one after the other.
type readers struct {
	stop  chan struct{}
	ended sync.WaitGroup

	careful, careless int     // reads that found something
	mixed             int     // that the careless one saw
	faults            []error // that the careful one saw
}

// pause leaves most of the processor to the program: a traced one is slow enough for readers to meet every state.
const pause = 300 * time.Microsecond

func startReaders(volume, layout string) *readers {
	r := &readers{stop: make(chan struct{})}
	r.ended.Go(func() {
		for ; !r.stopped(); time.Sleep(pause) {
			err := readCarefully(volume, layout)
			switch {
			case errors.Is(err, set.ErrNothing):
				continue
			case err != nil:
				r.faults = append(r.faults, err)
			}
			r.careful++
		}
	})
	r.ended.Go(func() {
		for ; !r.stopped(); time.Sleep(pause) {
			_, err := set.ReadPEM(volume)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				r.mixed++
			}
			r.careless++
		}
	})
	return r
}

func (r *readers) stopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

// end waits for the readers; only then may their results be read.
func (r *readers) end() {
	close(r.stop)
	r.ended.Wait()
}

func readCarefully(volume, layout string) error {
	if layout == "inplace" {
		combined, err := os.ReadFile(filepath.Join(volume, "keystore-combined.pem"))
		if errors.Is(err, fs.ErrNotExist) {
			return set.ErrNothing
		}
		if err == nil {
			_, err = tls.X509KeyPair(combined, combined)
		}
		return err
	}
	target, err := os.Readlink(filepath.Join(volume, "..data"))
	if err != nil {
		return set.ErrNothing
	}
	_, err = set.ReadPEM(filepath.Join(volume, target)) // a set that vanishes while it is read is a fault
	return err
}
