package output

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// scene is a publication over what another one left. The volume is new for each way to break it.
type scene struct {
	before, after Config // of one directory
	old, new      Bundle
	empty         bool // there is no old one
}

// scenes are the changes that a volume goes through.
func scenes() map[string]func(t *testing.T) scene {
	old, renewed := newBundle(), newBundle()
	make := func(empty bool, before, after string, typesBefore ...string) func(*testing.T) scene {
		return func(t *testing.T) scene {
			s := scene{newConfig(t, before, typesBefore...), Config{}, old, renewed, empty}
			s.before.KeystorePassword, s.before.TruststorePassword = "secret-1", "secret-2"
			s.after = s.before
			s.after.Layout, s.after.Types, s.after.NotePending = after, []string{TypePEM}, true
			if !empty {
				mustPublish(t, mustOpen(t, s.before), old)
			}
			return s
		}
	}
	return map[string]func(*testing.T) scene{
		"first symlink":              make(true, LayoutSymlink, LayoutSymlink, TypePEM),
		"first inplace":              make(true, LayoutInplace, LayoutInplace, TypePEM),
		"renewal symlink":            make(false, LayoutSymlink, LayoutSymlink, TypePEM),
		"renewal inplace":            make(false, LayoutInplace, LayoutInplace, TypePEM),
		"other type becomes inplace": make(false, LayoutSymlink, LayoutInplace, TypeJKS),
		"other type becomes symlink": make(false, LayoutInplace, LayoutSymlink, TypeJKS),
		"fewer types inplace":        make(false, LayoutInplace, LayoutInplace, TypePEM, TypeJKS),
		"fewer types symlink":        make(false, LayoutSymlink, LayoutSymlink, TypePEM, TypeJKS),
	}
}

// kill is what a step panics with in place of kill -9. After it no step does anything more, so that
// no deferred clean-up can help.
type kill struct{}

// at makes the nth step fail in the given way, and counts them all.
func at(n int, count *int, fail files.StepFunc) files.StepFunc {
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

// wasKilled does work that may be killed.
func wasKilled(work func()) (was bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, was = r.(kill); !was {
				panic(r)
			}
		}
	}()
	work()
	return false
}

// play opens and publishes with the step function. The volume is nil when it could not be opened.
func (s scene) play(step files.StepFunc) (v *Volume, err error, killed bool) {
	killed = wasKilled(func() {
		if v, err = open(s.after, step); err == nil {
			_, err = v.Publish(s.new)
		}
	})
	return v, err, killed
}

// steps counts the steps of the scene.
func (s scene) steps(t *testing.T) (steps int) {
	_, err, _ := s.play(at(0, &steps, nil))
	require.NoError(t, err)
	require.Greater(t, steps, 20)
	return steps
}

func TestVolume_Publish_brokenAtAnyStepLeavesOneWholeSet(t *testing.T) {
	ways := map[string]files.StepFunc{"killed": killedWriting, "full": full, "full, then again": full}
	for name, stage := range scenes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := stage(t).steps(t); n > 0; n-- {
				for how, fail := range ways {
					s, count, where := stage(t), 0, ""
					v, err, killed := s.play(at(n, &count, func(op, path string) error {
						where = fmt.Sprintf("%s at step %d: %s %s", how, n, op, filepath.Base(path))
						return fail(op, path)
					}))
					require.Equal(t, how == "killed", killed, where)
					// Only that an old generation stays is not an error.
					if how != "killed" && !strings.Contains(where, files.OpRemove+" ..2026_") {
						require.ErrorAs(t, err, new(*FileError), where)
						require.ErrorIs(t, err, syscall.ENOSPC, where)
					}
					if how != "killed" { // another process may need the room
						require.NoDirExists(t, filepath.Join(s.after.Dir, stageDir), where)
					}
					if how == "full, then again" && v != nil {
						require.NotEmpty(t, mustPublish(t, v, s.new).Files, where)
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
	if generation, err := os.Readlink(filepath.Join(s.after.Dir, dataLink)); err == nil {
		requireGeneration(t, filepath.Join(s.after.Dir, generation), s, where)
	}
	v := mustOpen(t, s.after) // completes it or undoes it
	settled := listing(t, s.after.Dir)
	requireNothingLeft(t, settled, where)
	switch bundle, err := Read(s.after); {
	case err == nil:
		require.True(t, bundle.equal(s.new) || !s.empty && bundle.equal(s.old), where)
		// The application has to be notified of whatever readers may see.
		require.True(t, v.Pending() || !bundle.equal(s.new), where)
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

var generationName = regexp.MustCompile(`^\.\.\d{4}_`)

// requireNothingLeft checks that there are visible files, all regular or all links, and for links ..data
// with at most two generations, and nothing else.
func requireNothingLeft(t *testing.T, names map[string]string, where string) {
	t.Helper()
	_, symlink := names[dataLink]
	links, hidden := 0, 0
	for name, what := range names {
		switch {
		case name == pendingName:
			hidden++
		case generationName.MatchString(name) && symlink:
			hidden++
			require.Equal(t, "drwxr-x---", what, "%s: %s", name, where)
		case name == dataLink:
			require.Contains(t, names, strings.TrimPrefix(what, "-> "), where)
		default:
			require.True(t, ours(name), "%s is left: %s", name, where)
			if strings.HasPrefix(what, "-> ") {
				require.Equal(t, "-> ..data/"+name, what, where)
				links++
			}
		}
	}
	if symlink {
		require.LessOrEqual(t, hidden, 3, where)
		require.Equal(t, len(names)-1-hidden, links, "%v: %s", names, where)
	} else {
		require.Zero(t, links, where)
	}
}

func TestVolume_Open_killedAtAnyStepOfTheClearing(t *testing.T) {
	for name, stage := range scenes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := stage(t).steps(t); n > 0; n-- {
				for m, cleared := 1, false; !cleared; m++ {
					s, count := stage(t), 0
					_, _, dead := s.play(at(n, &count, killed))
					require.True(t, dead)
					count = 0
					cleared = !wasKilled(func() { _, _ = open(s.after, at(m, &count, killed)) })
					requireOneWholeSet(t, s, fmt.Sprintf("killed at step %d, then at %d of clearing", n, m))
				}
			}
		})
	}
}

func TestOpen_killedWhileMakingTheDirectory(t *testing.T) {
	for n, done := 1, false; !done; n++ {
		cfg, count := newConfig(t, LayoutSymlink, TypePEM), 0
		done = !wasKilled(func() { _, _ = open(cfg, at(n, &count, killed)) })
		mustOpen(t, cfg)
		require.Equal(t, map[string]string{"certs": "drwxr-x---"}, listing(t, filepath.Dir(cfg.Dir)), n)
		require.True(t, !done || n > 4)
	}
}
