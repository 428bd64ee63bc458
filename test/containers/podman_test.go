//go:build containers

package containers

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	root    = "../.."
	version = "0.0.0-test"
	epoch   = "1700000000"
)

// hardened are the flags of the restricted Pod Security Standard. Podman would mount writable
// directories over a read-only root; Kubernetes does not.
var hardened = []string{"--read-only", "--read-only-tmpfs=false", "--user", "65532:65532",
	"--cap-drop=all", "--security-opt=no-new-privileges"}

var (
	dir         string   // everything that podman stores
	environment []string // makes podman, buildah and podman-compose use it
)

func TestMain(m *testing.M) {
	code := m.Run()
	if dir != "" {
		if err := cleanUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// setup makes a podman of the test's own and the images of this machine, once.
func setup(t *testing.T) {
	t.Helper()
	fixture.RequirePrograms(t, "podman")
	if os.Geteuid() != 0 {
		fixture.SkipWithout(t, "a user who may run containers (root)")
	}
	require.NoError(t, prepare())
}

var prepare = sync.OnceValue(func() error {
	if err := configure(); err != nil {
		return err
	}
	_, err := command("./deploy/images/build.sh")
	return err
})

// configure writes podman's configuration.
func configure() error {
	var err error
	if dir, err = os.MkdirTemp("", "containers"); err != nil {
		return err
	}
	values := map[string]string{"DIR": dir, "RUNTIME": "crun", "CGROUPS": "systemd"}
	if _, err := exec.LookPath("runc"); err == nil {
		values["RUNTIME"] = "runc"
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		values["CGROUPS"] = "cgroupfs"
	}
	// Limits that this process may give: podman's own defaults can be higher than the hard limits of a virtual machine
	// without CAP_SYS_RESOURCE.
	const rlimitNPROC = 6 // not in package syscall
	var files, processes syscall.Rlimit
	err = errors.Join(os.Chmod(dir, 0o755), // user 65532 reads mounted directories in it
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files), syscall.Getrlimit(rlimitNPROC, &processes))
	values["FILES"] = fmt.Sprint(min(1024, files.Max))
	values["PROCESSES"] = fmt.Sprint(min(4096, processes.Max))
	for _, name := range []string{"containers.conf", "storage.conf"} {
		content, failed := os.ReadFile("testdata/" + name)
		text := os.Expand(string(content), func(name string) string { return values[name] })
		err = errors.Join(err, failed, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	environment = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"),
		"CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"), "VERSION="+version,
		"SOURCE_DATE_EPOCH="+epoch, "BUILDER=podman")
	return err
}

// prepared is a program at the root of the repository.
func prepared(name string, arguments ...string) *exec.Cmd {
	c := exec.Command(name, arguments...)
	c.Dir, c.Env = root, environment
	return c
}

// command runs a program at the root of the repository, and returns what it prints.
func command(name string, arguments ...string) (string, error) {
	c := prepared(name, arguments...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	output, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(arguments, " "), err, output, stderr.String())
	}
	return string(output), nil
}

// compose returns what runs podman-compose for a project with files and variables. When the test fails, its containers'
// logs are shown.
func compose(t *testing.T, project string, files []string, variables ...string) func(arguments ...string) {
	t.Helper()
	fixture.RequirePrograms(t, "podman-compose")
	fixed := append(variables, "podman-compose", "-p", project)
	for _, file := range files {
		fixed = append(fixed, "-f", file)
	}
	t.Cleanup(func() {
		if t.Failed() {
			names, _ := command("podman", "ps", "--all", "--format", "{{.Names}}")
			for _, name := range strings.Fields(names) {
				t.Logf("log of %s:\n%s", name, logs(name))
			}
		}
	})
	return func(arguments ...string) {
		t.Helper()
		_, err := command("env", slices.Concat(fixed, arguments)...)
		require.NoError(t, err)
	}
}

// podman runs podman and returns what it prints.
func podman(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := command("podman", arguments...)
	require.NoError(t, err)
	return strings.TrimSpace(output)
}

// start starts a container under the hardening flags, until the test ends.
func start(t *testing.T, name string, arguments ...string) {
	t.Helper()
	podman(t, append(append([]string{"run", "--detach", "--name", name}, hardened...), arguments...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, logs(name))
		}
		podman(t, "rm", "--force", "--time", "5", name)
	})
}

// state is whether a container runs, and how it ended.
func state(t *testing.T, container string) string {
	t.Helper()
	return podman(t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container)
}

// logs are both outputs of a container.
func logs(name string) string {
	output, _ := prepared("podman", "logs", name).CombinedOutput()
	return string(output)
}

// eventually asks until the condition is met, and fails with its last word after the time.
func eventually(t *testing.T, within time.Duration, what string, condition func() error) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, condition(), what) },
		within, 250*time.Millisecond)
}

// freePort is a port on loopback that no one listens on.
func freePort(t *testing.T) string { return strings.TrimPrefix(fixture.FreeAddress(t), "127.0.0.1:") }

// file is one entry of a volume or an image.
type file struct {
	header  *tar.Header
	content []byte
}

// readTar reads what a command of podman exports, by cleaned path.
func readTar(t *testing.T, arguments ...string) map[string]file {
	t.Helper()
	archive, err := command("podman", arguments...)
	require.NoError(t, err)
	files := map[string]file{}
	for reader := tar.NewReader(strings.NewReader(archive)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		files[filepath.Clean(header.Name)] = file{header, fixture.Must(io.ReadAll(reader))}
	}
}

// volume reads a named volume.
func volume(t *testing.T, name string) map[string]file {
	t.Helper()
	return readTar(t, "volume", "export", name)
}

// cleanUp takes down whatever is left and forgets all images.
func cleanUp() error {
	for _, arguments := range [][]string{
		{"pod", "rm", "--all", "--force"}, {"rm", "--all", "--force", "--time", "1"},
		{"network", "prune", "--force"}, {"rmi", "--all", "--force"},
	} {
		if _, err := command("podman", arguments...); err != nil {
			return err
		}
	}
	// Overlay storage is mounted on itself.
	_ = syscall.Unmount(filepath.Join(dir, "root", "overlay"), 0)
	return os.RemoveAll(dir)
}
