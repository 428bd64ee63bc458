// Package programs builds the programs of this repository for tests that run them.
package programs

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var names = []string{"certfetcher", "certservice", "devca"}

// shared is where built programs are kept for all packages with tests, and for the next run. It is determined before a
// test changes TMPDIR.
var shared = filepath.Join(os.TempDir(), fmt.Sprintf("certfetcher-programs-%d", os.Getuid()))

// Build builds the programs of cmd, as they are shipped, and returns the directory that holds them. Only the first call
// after a change builds anything, by whatever process. Every user may run the programs.
func Build() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..") // tests with a module of their own call it, too
	latest := filepath.Join(shared, fmt.Sprintf("latest-%.8x", sha256.Sum256([]byte(root))))
	unlock, err := lock()
	if err != nil {
		return "", fmt.Errorf("locking the directory of built programs: %w", err)
	}
	defer unlock()
	args := []string{"build", "-tags", "nethttpomithttp2", "-ldflags", "-s -w", "-o", latest + string(filepath.Separator)}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	build := exec.Command("go", args...)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	content := sha256.New()
	for _, name := range names {
		program, err := os.ReadFile(filepath.Join(latest, name))
		if err != nil {
			return "", err
		}
		content.Write(program)
	}
	return keep(fmt.Sprintf("programs-%.16x", content.Sum(nil)), func(dir string) error {
		for _, name := range names { // the next build makes other files, and leaves these alone
			if err := os.Link(filepath.Join(latest, name), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Compiled returns a directory with what fill makes of the content, such as classes of a source. Only the first call for a
// content makes it, by whatever process.
func Compiled(content []byte, fill func(dir string) error) (string, error) {
	unlock, err := lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	return keep(fmt.Sprintf("compiled-%.16x", sha256.Sum256(content)), fill)
}

// keep fills a directory with the name, unless it is there. It removes those that no test has asked for in a day.
func keep(name string, fill func(dir string) error) (string, error) {
	dir := filepath.Join(shared, name)
	if _, err := os.Stat(dir); err != nil {
		made, err := os.MkdirTemp(shared, "new-")
		if err == nil {
			err = fill(made)
		}
		if err == nil {
			err = os.Chmod(made, 0o755)
		}
		if err == nil {
			err = os.Rename(made, dir)
		}
		if err != nil {
			return "", err
		}
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(shared)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && entry.IsDir() && now.Sub(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(filepath.Join(shared, entry.Name())) // it is made again when it is needed
		}
	}
	return dir, err
}

// lock makes the shared directory, which must then be this user's, and keeps other processes out until it is unlocked.
func lock() (unlock func(), err error) {
	if err := os.MkdirAll(shared, 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(shared); err != nil {
		return nil, err
	} else if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Getuid() || !info.IsDir() {
		return nil, fmt.Errorf("%s belongs to user %d, want a directory of user %d", shared, owner, os.Getuid())
	}
	file, err := os.OpenFile(filepath.Join(shared, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}

func isParallel(argument string) bool { return strings.HasPrefix(argument, "-test.parallel") }

// RunTests is for TestMain: it sets dir to the directory of the built programs, runs the tests, and ends the process. What
// has to be prepared gets a new directory, which every user may search and which is removed in the end.
func RunTests(m *testing.M, dir *string, prepare ...func(scratch string) error) {
	os.Exit(func() int {
		built, err := Build()
		*dir = built
		for _, do := range prepare {
			scratch, failed := os.MkdirTemp("", "certfetcher-tests-")
			defer os.RemoveAll(scratch)
			if err = errors.Join(err, failed); err == nil {
				err = errors.Join(os.Chmod(scratch, 0o755), do(scratch))
			}
		}
		if flag.Parse(); !slices.ContainsFunc(os.Args, isParallel) { // such tests wait more than they work
			err = errors.Join(err, flag.Set("test.parallel", "8"))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}
