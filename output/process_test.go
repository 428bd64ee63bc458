package output

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// The test binary runs itself as another process for what a process cannot do to itself. It is told by
// these variables what to do, and where.
const (
	childTask = "OUTPUT_TEST_CHILD"
	childDir  = "OUTPUT_TEST_DIR"
)

// runChild does the child's task, if this process is one.
func runChild() {
	cfg := Config{Dir: os.Getenv(childDir), Types: []string{TypePEM}}
	task, layout, _ := strings.Cut(os.Getenv(childTask), " ")
	cfg.Layout = layout
	switch task {
	case "":
		return
	case "publish": // for ever, saying each step before it is taken
		v, err := open(cfg, func(op, path string) error {
			fmt.Println(op, path)
			return nil
		})
		for err == nil {
			_, err = v.Publish(newBundle())
		}
		fmt.Println("failed:", err)
	case "publish-once":
		v, err := Open(cfg)
		if err == nil {
			_, err = v.Publish(newBundle())
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "open":
		_, err := Open(cfg)
		fmt.Println(err)
	}
	os.Exit(0)
}

func child(t *testing.T, task, dir string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childTask+"="+task, childDir+"="+dir)
	return cmd
}

func TestVolume_Publish_realProcessKilled(t *testing.T) {
	for _, layout := range layouts {
		for lines := 20; lines < 300; lines += 13 {
			cfg := newConfig(t, layout, TypePEM)
			cmd := child(t, "publish "+layout, cfg.Dir)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			steps, last := bufio.NewScanner(stdout), ""
			for n := 0; n < lines && steps.Scan(); n++ {
				last = steps.Text()
			}
			require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
			require.ErrorContains(t, cmd.Wait(), "signal: killed")

			v := mustOpen(t, cfg)
			bundle, err := v.Current()
			if lines > 60 { // more than the first publication takes
				require.NoError(t, err, last)
			}
			if err == nil {
				require.NoError(t, bundle.check())
			} else {
				require.ErrorIs(t, err, ErrEmpty, last)
			}
			requireNothingLeft(t, listing(t, cfg.Dir), last)
		}
	}
}

// A reader that resolves ..data once must find one whole set, and must be able to finish with it while
// the next one is published.
func TestVolume_Publish_underReadersOfSymlinks(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	v := mustOpen(t, cfg)
	mustPublish(t, v, newBundle())
	underReaders(t, v, 150, func() error {
		generation, err := os.Readlink(filepath.Join(cfg.Dir, "..data"))
		if err != nil {
			return err
		}
		_, err = Read(Config{Dir: filepath.Join(cfg.Dir, generation), Types: cfg.Types, Layout: LayoutInplace})
		return err
	})
}

// In the inplace layout each file is whole at any moment, and the combined one agrees with itself.
func TestVolume_Publish_underReadersInPlace(t *testing.T) {
	cfg := newConfig(t, LayoutInplace, TypePEM, TypeJKS)
	v := mustOpen(t, cfg)
	mustPublish(t, v, newBundle())
	underReaders(t, v, 50, func() error {
		d, err := v.unlocked(cfg.Dir)
		if err != nil {
			return err
		}
		defer d.Close()
		r := reader{cfg: v.cfg, files: d.look().files}
		if _, err = jksFormat.read(r); err != nil {
			return err
		}
		entries, err := r.open("keystore-combined.pem", "", "PEM")
		if err == nil && (len(entries) != 1 || len(entries[0].Chain) != 2) {
			err = fmt.Errorf("the combined file has %s", describe(entries))
		}
		return err
	})
}

// underReaders publishes while readers read all the time. A publication waits only for the reads that
// began before the one before it: for so long a reader's files are promised to stay.
func underReaders(t *testing.T, v *Volume, rounds int, read func() error) {
	var round atomic.Int64
	var readers sync.WaitGroup
	finished, done := make(chan struct{}), make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for seen := int64(0); ; {
				if err := read(); err != nil {
					t.Errorf("in round %d: %v", seen, err)
				}
				now := round.Load()
				if now == seen {
					continue
				}
				select {
				case finished <- struct{}{}:
					seen = now
				case <-done:
					return
				}
			}
		})
	}
	bundles := []Bundle{newBundle(), newBundle()}
	for i := range rounds {
		assert.True(t, mustPublish(t, v, bundles[i%2]).Changed)
		round.Add(1)
		<-finished
		<-finished
	}
	close(done)
	round.Add(1)
	readers.Wait()
}

// Two processes may share a volume, as pods of one deployment do.
func TestVolume_Publish_bySeveralAtOnce(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		cfg.Now = nil
		bundles := []Bundle{newBundle(), newBundle()}
		var writers sync.WaitGroup
		for _, b := range bundles {
			v := mustOpen(t, cfg)
			writers.Go(func() {
				for range 50 {
					if _, err := v.Publish(b); !assert.NoError(t, err) {
						return
					}
					if _, err := Read(cfg); !assert.NoError(t, err) {
						return
					}
				}
			})
		}
		writers.Wait()
		bundle, err := mustOpen(t, cfg).Current()
		require.NoError(t, err)
		require.True(t, bundle.equal(bundles[0]) || bundle.equal(bundles[1]))
		requireNothingLeft(t, listing(t, cfg.Dir), layout)
	}
}

// A process that hangs with the lock must not make another hang as well.
func TestVolume_Publish_lockedByAnother(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	v := mustOpen(t, cfg)
	_, closeDisk, err := v.disk()
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := v.Publish(newBundle())
		require.EqualError(t, err, `locking "`+cfg.Dir+`": another process has worked in this directory for 10s`)
		require.GreaterOrEqual(t, time.Since(began), files.LockWait)
	})
	closeDisk()
	mustPublish(t, v, newBundle())
}

// Who only reads neither waits for the lock nor needs the right to take it.
func TestRead_whileAnotherHoldsTheLock_doesNotWait(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		b := newBundle()
		v := mustOpen(t, cfg)
		mustPublish(t, v, b)
		_, closeDisk, err := v.disk()
		require.NoError(t, err)
		began := time.Now()
		found, err := Read(cfg)
		require.NoError(t, err)
		require.True(t, found.equal(b))
		require.Equal(t, b.Note, ReadNote(cfg.Dir))
		require.Less(t, time.Since(began), files.LockWait)
		closeDisk()
	}
}

// Two processes may find the directory missing at the same time.
func TestOpen_directoryMadeByAnotherMeanwhile(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	b := newBundle()
	published := false
	_, err := open(cfg, func(op, path string) error {
		if op == files.OpRename && !published {
			published = true
			faster := cfg
			faster.Dir = filepath.Join(filepath.Dir(cfg.Dir), "faster")
			mustPublish(t, mustOpen(t, faster), b)
			return os.Rename(faster.Dir, cfg.Dir)
		}
		return nil
	})
	require.NoError(t, err)
	requireCurrent(t, cfg, b)
	require.Equal(t, map[string]string{"certs": "drwxr-x---"}, listing(t, filepath.Dir(cfg.Dir)))
}
