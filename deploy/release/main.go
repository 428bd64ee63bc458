// Command release makes a release out of a checkout: programs, packages, images, charts, bills of materials,
// provenance, checksums and signatures, in dist/release/VERSION. It needs Go, make and git; no daemon and no network
// but for Go modules. The same commit, version and Go give the same bytes, wherever, whenever and by whom it is run.
//
//	release build               the whole release
//	release publish REGISTRY    copies images and charts of the release to a registry
//
// The environment:
//
//	VERSION                     such as 1.2.3 or 1.3.0-rc.1; without, the tag of the commit
//	RELEASE_KEY                 a file with an ECDSA P-256 key in PEM; without one nothing is signed
//	RELEASE_KEY_PASSWORD_FILE   a file with the key's password
//	IMAGE_PREFIX                such as registry.example.org/certfetcher/: where the images will be
//	RELEASE_DIRTY=1             also from a checkout with changes that are not committed
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	syscall.Umask(0o022)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	top, err := output("git", "rev-parse", "--show-toplevel")
	if err == nil {
		err = os.Chdir(top)
	}
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "build":
		return build()
	case len(args) == 2 && args[0] == "publish":
		s, err := readSource()
		if err != nil {
			return err
		}
		return publish(s.dir(), args[1])
	}
	return errors.New("want build, or publish REGISTRY")
}

// source is what a release is made of.
type source struct {
	version  string
	revision string // the commit, with -dirty where not all is committed
	time     time.Time
	prefix   string // of the images' names
}

const project = "https://github.com/certfetcher/certfetcher"

// semantic is a version of SemVer 2.0 without build metadata, which OCI tags cannot have. What git describe makes of a
// commit after a tag is none.
var (
	semantic  = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)
	described = regexp.MustCompile(`-\d+-g[0-9a-f]+$`)
)

func readSource() (source, error) {
	s := source{version: os.Getenv("VERSION"), prefix: os.Getenv("IMAGE_PREFIX")}
	revision, err := output("git", "rev-parse", "HEAD")
	if err != nil {
		return s, err
	}
	changes, err := output("git", "status", "--porcelain")
	if err != nil {
		return s, err
	}
	s.revision = revision
	if changes != "" {
		if os.Getenv("RELEASE_DIRTY") != "1" {
			return s, fmt.Errorf("the checkout has changes that are not committed: commit them, or set "+
				"RELEASE_DIRTY=1 for a trial\n%s", changes)
		}
		s.revision += "-dirty"
	}
	seconds, err := output("git", "log", "-1", "--format=%ct")
	if err != nil {
		return s, err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return s, err
	}
	s.time = time.Unix(unix, 0).UTC()
	if s.version == "" {
		tag, err := output("git", "describe", "--tags", "--exact-match")
		if err != nil {
			return s, fmt.Errorf("VERSION is not set, and commit %s has no tag: want VERSION=1.2.3", revision)
		}
		s.version = tag
	}
	s.version = strings.TrimPrefix(s.version, "v")
	if !semantic.MatchString(s.version) || described.MatchString(s.version) {
		return s, fmt.Errorf("VERSION has %q, want a semantic version such as 1.2.3 or 1.3.0-rc.1", s.version)
	}
	return s, nil
}

func (s source) dir() string { return filepath.Join("dist", "release", s.version) }

// build makes the release in a directory beside its place, so that a failed one is never taken for a whole one.
func build() error {
	s, err := readSource()
	if err != nil {
		return err
	}
	sign, err := loadKey()
	if err != nil {
		return err
	}
	r := &release{source: s, dir: s.dir() + ".part", sign: sign}
	if err := errors.Join(os.RemoveAll(r.dir), os.RemoveAll(s.dir()), os.MkdirAll(r.dir, 0o755)); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"programs", r.buildPrograms}, {"archives", r.packArchives}, {"packages", r.packPackages},
		{"images", r.packImages}, {"charts", r.packCharts}, {"notes", r.writeNotes},
		{"provenance", r.writeProvenance}, {"checksums", r.writeChecksums},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := errors.Join(os.RemoveAll(r.stage()), os.Rename(r.dir, s.dir())); err != nil {
		return err
	}
	signed := "NOT SIGNED: set RELEASE_KEY to a file with an ECDSA P-256 key"
	if sign != nil {
		signed = "signed by the key " + sign.id()
	}
	fmt.Printf("%s: version %s of commit %s, %s\n", s.dir(), s.version, s.revision, signed)
	return nil
}

// release is one that is being made.
type release struct {
	source
	dir     string
	sign    *signer           // nil: nothing is signed
	digests map[string]string // of images and charts, by the names of their layouts below oci
}

// stage is where programs are built; it is no part of the release.
func (r *release) stage() string { return filepath.Join(r.dir, "stage") }

func (r *release) path(elements ...string) string {
	return filepath.Join(append([]string{r.dir}, elements...)...)
}

// write writes a file of the release.
func (r *release) write(name string, content []byte) error {
	path := r.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// output runs a program, and returns what it prints, without spaces at either end.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, failed.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
