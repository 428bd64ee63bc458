package output

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scene is a publication over what another one left. The volume is made anew for each way to break it.
type scene struct {
	before, after Config // of one directory
	old, new      Bundle
	empty         bool // there is no old one
}

// scenes are the changes that a volume goes through.
func scenes(t *testing.T) map[string]func() scene {
	old, renewed := newBundle(), newBundle()
	make := func(empty bool, before, after string, typesBefore, typesAfter []string) func() scene {
		return func() scene {
			s := scene{old: old, new: renewed, empty: empty, before: newConfig(t, before, typesBefore...)}
			s.before.KeystorePassword, s.before.TruststorePassword = "secret-1", "secret-2"
			s.after = s.before
			s.after.Layout, s.after.Types = after, typesAfter
			if !empty {
				mustPublish(t, mustOpen(t, s.before), old)
			}
			return s
		}
	}
	pem, jks := []string{TypePEM}, []string{TypeJKS}
	return map[string]func() scene{
		"first symlink":              make(true, LayoutSymlink, LayoutSymlink, pem, pem),
		"first inplace":              make(true, LayoutInplace, LayoutInplace, pem, pem),
		"renewal symlink":            make(false, LayoutSymlink, LayoutSymlink, pem, pem),
		"renewal inplace":            make(false, LayoutInplace, LayoutInplace, pem, pem),
		"other type becomes inplace": make(false, LayoutSymlink, LayoutInplace, jks, pem),
		"other type becomes symlink": make(false, LayoutInplace, LayoutSymlink, jks, pem),
		"fewer types inplace":        make(false, LayoutInplace, LayoutInplace, []string{TypePEM, TypeJKS}, pem),
		"fewer types symlink":        make(false, LayoutSymlink, LayoutSymlink, []string{TypePEM, TypeJKS}, pem),
	}
}

// kill is what a step panics with in place of kill -9. After it no step does anything more, so that
// no deferred clean-up can help.
type kill struct{}

// at makes the nth step fail in the given way, and counts them all.
func at(n int, count *int, fail func(op, path string) error) files.StepFunc {
	dead := false
	return func(op, path string) (err error) {
		if dead {
			panic(kill{})
		}
		*count++
		if *count != n {
			return nil
		}
		defer func() {
			if r := recover(); r != nil {
				dead = true
				panic(r)
			}
		}()
		return fail(op, path)
	}
}

func killed(string, string) error { panic(kill{}) }

// killedWriting dies after half of the data.
func killedWriting(op, path string) error {
	if op == files.OpWrite {
		if err := os.WriteFile(path, []byte("-----BEGIN PRIV"), 0o600); err != nil {
			return err
		}
	}
	panic(kill{})
}

func full(op, path string) error { return &os.PathError{Op: op, Path: path, Err: syscall.ENOSPC} }

// publishBroken opens and publishes with the step function, and tells how it ended.
func publishBroken(cfg Config, b Bundle, step files.StepFunc) (err error, wasKilled bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(kill); !ok {
				panic(r)
			}
			wasKilled = true
		}
	}()
	v, err := open(cfg, step)
	if err != nil {
		return err, false
	}
	_, err = v.Publish(b)
	return err, false
}

func TestVolume_Publish_brokenAtAnyStepLeavesOneWholeSet(t *testing.T) {
	for name, stage := range scenes(t) {
		t.Run(name, func(t *testing.T) {
			steps := 0
			s := stage()
			err, _ := publishBroken(s.after, s.new, at(0, &steps, nil))
			require.NoError(t, err)
			require.Greater(t, steps, 20)
			for n := 1; n <= steps; n++ {
				for how, fail := range map[string]func(op, path string) error{"killed": killedWriting, "full": full} {
					s, count, where := stage(), 0, ""
					err, wasKilled := publishBroken(s.after, s.new, at(n, &count, func(op, path string) error {
						where = fmt.Sprintf("%s at step %d: %s %s", how, n, op, filepath.Base(path))
						return fail(op, path)
					}))
					require.Equal(t, how != "full", wasKilled, where)
					if how == "full" && !generationRemoval(where) {
						var fileError *FileError
						require.ErrorAs(t, err, &fileError, where)
						require.ErrorIs(t, err, syscall.ENOSPC, where)
					}
					requireOneWholeSet(t, s, where)
				}
			}
		})
	}
}

// requireOneWholeSet checks what readers see right away, then what a new process makes of it.
func requireOneWholeSet(t *testing.T, s scene, where string) {
	t.Helper()
	if generation, err := os.Readlink(filepath.Join(s.after.Dir, "..data")); err == nil {
		requireGeneration(t, filepath.Join(s.after.Dir, generation), s, where)
	}
	// A process for the configuration that was there before rolls back or completes as well.
	v := mustOpen(t, s.after)
	settled := listing(t, s.after.Dir)
	requireNothingLeft(t, settled, where)
	switch bundle, err := Read(s.after); {
	case err == nil:
		require.True(t, bundle.equal(s.new) || !s.empty && bundle.equal(s.old), where)
	case s.empty:
		require.ErrorIs(t, err, ErrEmpty, where)
	default:
		bundle, err := Read(s.before)
		require.NoError(t, err, where)
		require.True(t, bundle.equal(s.old), where)
	}
	// A second start finds nothing to do.
	mustOpen(t, s.after)
	require.Equal(t, settled, listing(t, s.after.Dir), where)

	mustPublish(t, v, s.new)
	requireCurrent(t, s.after, s.new)
	requireNothingLeft(t, listing(t, s.after.Dir), where)
}

// requireGeneration checks that a reader who has resolved ..data finds a whole set behind it.
func requireGeneration(t *testing.T, dir string, s scene, where string) {
	t.Helper()
	before, after := s.before, s.after
	before.Dir, before.Layout, after.Dir, after.Layout = dir, LayoutInplace, dir, LayoutInplace
	bundle, err := Read(after)
	if err != nil {
		bundle, err = Read(before)
	}
	require.NoError(t, err, where)
	require.True(t, bundle.equal(s.new) || bundle.equal(s.old), where)
}

// generationRemoval tells of a step whose failure is only reported.
func generationRemoval(where string) bool { return strings.Contains(where, files.OpRemove+" ..2026_") }

var generationName = regexp.MustCompile(`^\.\.\d{4}_`)

// requireNothingLeft checks that there are visible files, all regular or all links, and for links ..data
// with at most two generations, and nothing else.
func requireNothingLeft(t *testing.T, names map[string]string, where string) {
	t.Helper()
	links, generations := 0, 0
	for name, what := range names {
		switch {
		case generationName.MatchString(name):
			generations++
			require.Equal(t, "drwxr-x---", what, "%s: %s", name, where)
		case name == "..data":
			require.Contains(t, names, strings.TrimPrefix(what, "-> "), where)
		default:
			require.True(t, ours(name), "%s is left: %s", name, where)
			if strings.HasPrefix(what, "-> ") {
				require.Equal(t, "-> ..data/"+name, what, where)
				links++
			}
		}
	}
	if _, symlink := names["..data"]; symlink {
		require.LessOrEqual(t, generations, 2, where)
		require.Equal(t, len(names)-1-generations, links, "%v: %s", slices.Collect(maps.Keys(names)), where)
	} else {
		require.Zero(t, links+generations, where)
	}
}

func TestVolume_Open_killedAtAnyStepOfTheClearing(t *testing.T) {
	for name, stage := range scenes(t) {
		t.Run(name, func(t *testing.T) {
			steps := 0
			s := stage()
			_, _ = publishBroken(s.after, s.new, at(0, &steps, nil))
			for n := 1; n <= steps; n++ {
				for m, cleared := 1, false; !cleared; m++ {
					s, count := stage(), 0
					_, wasKilled := publishBroken(s.after, s.new, at(n, &count, killed))
					require.True(t, wasKilled)
					count = 0
					cleared = !openKilled(s.after, at(m, &count, killed))
					requireOneWholeSet(t, s, fmt.Sprintf("killed at step %d, then at step %d of clearing", n, m))
				}
			}
		})
	}
}

func openKilled(cfg Config, step files.StepFunc) (wasKilled bool) {
	defer func() { wasKilled = recover() != nil }()
	_, _ = open(cfg, step)
	return false
}

func TestVolume_Publish_isNotWedgedByWhatAKubeletLeaves(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		v := mustOpen(t, cfg)
		require.NoError(t, os.Symlink("..2025_01_01_00_00_00.123456789", filepath.Join(cfg.Dir, "..data_tmp")))
		require.NoError(t, os.MkdirAll(filepath.Join(cfg.Dir, "..2025_01_01_00_00_00.123456789"), 0o755))
		mustPublish(t, v, newBundle())
		requireNothingLeft(t, listing(t, cfg.Dir), layout)
	}
}

// Every error that a step may end with must leave the volume usable by the same process as well.
func TestVolume_Publish_failedIsRepeatedByTheSameProcess(t *testing.T) {
	for name, stage := range scenes(t) {
		t.Run(name, func(t *testing.T) {
			steps := 0
			s := stage()
			_, _ = publishBroken(s.after, s.new, at(0, &steps, nil))
			for n := 1; n <= steps; n++ {
				s, count := stage(), 0
				where := ""
				v, err := open(s.after, at(n, &count, func(op, path string) error {
					where = op + " " + filepath.Base(path)
					return full(op, path)
				}))
				if err != nil {
					continue
				}
				_, err = v.Publish(s.new)
				require.True(t, generationRemoval(where) || errors.Is(err, syscall.ENOSPC), where)
				p, err := v.Publish(s.new)
				require.NoError(t, err)
				assert.NotEmpty(t, p.Files)
				requireCurrent(t, s.after, s.new)
				requireNothingLeft(t, listing(t, s.after.Dir), name)
			}
		})
	}
}
