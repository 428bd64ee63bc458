//go:build linux && amd64

package kill

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos/set"
)

// readers read the PEM files of a volume for as long as certfetcher works on it. The careful one does as
// docs/applications.md says: it resolves ..data once and reads below that, or in the inplace layout opens the one file
// that holds key and chain. The careless one opens the visible names one after the other.
type readers struct {
	stop  atomic.Bool
	ended sync.WaitGroup

	careful, careless int     // reads that found something
	mixed             int     // that the careless one saw
	faults            []error // that the careful one saw
}

// pause leaves most of the processor to the program: a traced one is slow enough for readers to meet every state.
const pause = 300 * time.Microsecond

func startReaders(volume, layout string) *readers {
	r := &readers{}
	r.ended.Go(func() {
		for ; !r.stop.Load(); time.Sleep(pause) {
			_, err := set.ReadCarefully(volume, layout)
			if errors.Is(err, set.ErrNothing) {
				continue
			} else if err != nil {
				r.faults = append(r.faults, err)
			}
			r.careful++
		}
	})
	r.ended.Go(func() {
		for ; !r.stop.Load(); time.Sleep(pause) {
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

// end waits for the readers; only then may their results be read.
func (r *readers) end() {
	r.stop.Store(true)
	r.ended.Wait()
}
