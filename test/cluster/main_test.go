package cluster

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	root    = "../.."
	address = "10.77.0.1" // the node's
	version = "v1.34.4"   // of Kubernetes, as in its go.mod
	// cgroup is where all pods are, in each hierarchy.
	cgroup = "certfetcher-cluster"
)

// programs are those of Debian that it needs.
var programs = []string{"containerd", "containerd-shim-runc-v2", "etcd", "runc", "conntrack", "iptables", "ip",
	"nsenter", "openssl"}

// directories of this run.
var (
	state = filepath.Join(os.TempDir(), "certfetcher-cluster")
	logs  = absolute(root + "/dist/cluster") // of all components and pods; they stay
	built = absolute(root + "/bin/cluster")  // programs of Kubernetes and addons; they stay, too
)

func absolute(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return path
}

// The first process dies with the thread that started it, so that one must be the main thread.
func init() { runtime.LockOSThread() }

// TestMain runs three processes, each the child of the one before: one outside, which builds and cleans up; the first
// one inside of the namespaces, whose end is that of all others; and the one that runs the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	code, err := 0, error(nil)
	switch os.Getenv("CLUSTER_STAGE") {
	case "":
		code, err = outside()
	case "build": // ahead of time, by .ci/run
		err = build(components)
	case "first":
		code, err = first()
	case "tests":
		if err = start(); err == nil {
			code = m.Run()
		}
		if err != nil || code != 0 {
			fmt.Fprintln(os.Stderr, "logs of all components:", logs)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = 1
	}
	os.Exit(code)
}

// outside makes everything that needs the machine's network, runs the rest in namespaces, and removes what is left.
func outside() (code int, err error) {
	if missing := missing(); len(missing) > 0 {
		what := fmt.Errorf("not run, for want of %s", strings.Join(missing, ", "))
		if os.Getenv("CI") == "true" {
			return 1, fmt.Errorf("%w: CI must not pass without", what)
		}
		fmt.Println("cluster:", what)
		return 0, nil
	}
	lock, err := os.OpenFile(state+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return 1, fmt.Errorf("another run has %s: %w", lock.Name(), err)
	}
	if err := errors.Join(cleanUp(), os.RemoveAll(logs)); err != nil { // of a run that was killed
		return 1, err
	}
	defer func() { err = errors.Join(err, cleanUp()) }()
	for _, dir := range []string{logs, state + "/lib", state + "/images"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 1, err
		}
	}
	if err := definitions(); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if err := build(append(components, contents...)); err != nil {
		return 1, err
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	inside := exec.Command(self, os.Args[1:]...)
	inside.Env = append(os.Environ(), "CLUSTER_STAGE=first")
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	inside.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS |
		syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	if err := inside.Start(); err != nil {
		return 1, err
	}
	go func() {
		s := <-signals
		fmt.Fprintf(os.Stderr, "cluster: %s, everything is removed\n", s)
		_ = inside.Process.Kill() // it may have ended already
	}()
	if err := inside.Wait(); inside.ProcessState.ExitCode() < 0 {
		return 1, err
	}
	return inside.ProcessState.ExitCode(), nil
}

func missing() (missing []string) {
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, "the program "+program)
		}
	}
	if plugins() == "" {
		missing = append(missing, "the CNI plug-ins ptp and host-local")
	}
	return missing
}

// plugins is where the CNI plug-ins are: Debian's place, or that of everybody else.
func plugins() string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(dir + "/ptp"); err == nil {
			return dir
		}
	}
	return ""
}

// packages are built together, in the directory of a module.
type packages struct {
	dir  string
	args []string // of go build
}

var (
	// components are Kubernetes and addons, which are built as Kubernetes is, so that they share its packages. With
	// -trimpath they would not: of a module that is replaced it records the version that was required.
	components = []packages{
		{"kubernetes", []string{"-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=" + version, // charts ask
			"-o", built + "/", "tool"}},
		{"addons", []string{"-ldflags=-s -w", "-o", built + "/", "./..."}},
	}
	// contents are those of images, which have no libc.
	contents = []packages{
		{".", []string{"-trimpath", "-ldflags=-s -w", "-o", state + "/images/pause", "./pause"}},
		{root, []string{"-trimpath", "-ldflags=-s -w", "-o", state + "/images/app", "./deploy/compose/app"}},
		{root, []string{"-trimpath", "-ldflags=-s -w", "-o", state + "/images/", "-tags=nethttpomithttp2",
			"./cmd/certfetcher", "./cmd/certservice", "./cmd/devca"}},
	}
)

func build(all []packages) error {
	for _, p := range all {
		command := exec.Command("go", append([]string{"build"}, p.args...)...)
		command.Dir, command.Stderr = p.dir, os.Stderr
		if command.Env = os.Environ(); p.dir == "." || p.dir == root {
			command.Env = append(command.Env, "CGO_ENABLED=0")
		}
		if err := command.Run(); err != nil {
			return fmt.Errorf("building %s: %w", p.args[len(p.args)-1], err)
		}
	}
	return nil
}

// definitions copies the CRDs that the repository's manifests have objects of, from the modules that ship them. Those
// of cert-manager are of the release that addons run. Of the Prometheus operator the module proxy has an older release
// only.
func definitions() error {
	if err := os.MkdirAll(state+"/crds", 0o755); err != nil {
		return err
	}
	for module, pattern := range map[string]string{
		"github.com/cert-manager/cert-manager":                       "deploy/crds/cert-manager.io_*.yaml",
		"github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/*s.yaml",
	} {
		var downloaded struct{ Dir, Error string }
		download := exec.Command("go", "mod", "download", "-json", module)
		download.Dir = "addons"
		out, err := download.Output()
		if err := json.Unmarshal(out, &downloaded); err != nil {
			return err
		} else if downloaded.Error != "" {
			return errors.New(downloaded.Error)
		}
		if err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(downloaded.Dir, pattern))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("%s has no %s", module, pattern)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(filepath.Join(state, "crds", filepath.Base(file)), content, 0o600)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanUp removes what outlives the namespaces: files and cgroups. The kernel takes a moment to end the last process.
func cleanUp() error {
	err := os.RemoveAll(state)
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + cgroup) // version 1; a pattern that is well formed has no error
	for _, group := range append(groups, "/sys/fs/cgroup/"+cgroup) {
		err = errors.Join(err, removeGroup(group))
	}
	return err
}

func removeGroup(dir string) error {
	inner, _ := filepath.Glob(dir + "/*/cgroup.procs") // the directories below
	for _, file := range inner {
		if err := removeGroup(filepath.Dir(file)); err != nil {
			return err
		}
	}
	var err error
	for range 100 {
		if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
