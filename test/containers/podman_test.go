//go:build containers

package containers

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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
	once        sync.Once
	dir         string   // everything that podman stores
	environment []string // makes podman, buildah and podman-compose use it
	setupError  error
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
	once.Do(func() {
		setupError = configure()
		if setupError == nil {
			_, setupError = command("./deploy/images/build.sh")
		}
	})
	require.NoError(t, setupError)
}

// configure writes podman's configuration.
func configure() error {
	var err error
	if dir, err = os.MkdirTemp("", "containers"); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // user 65532 reads mounted directories in it
		return err
	}
	engine := []string{`events_logger = "file"`, `lock_type = "file"`,
		fmt.Sprintf("tmp_dir = %q", filepath.Join(dir, "tmp"))}
	if _, err := exec.LookPath("runc"); err == nil {
		engine = append(engine, `runtime = "runc"`)
	}
	if _, err := os.Stat("/run/systemd/system"); errors.Is(err, fs.ErrNotExist) {
		engine = append(engine, `cgroup_manager = "cgroupfs"`)
	}
	limits, err := ulimits()
	if err != nil {
		return err
	}
	files := map[string]string{
		"containers.conf": fmt.Sprintf(
			"[containers]\ndefault_ulimits = [%s]\n[engine]\n%s\n[network]\nnetwork_backend = "+
				"\"netavark\"\nnetwork_config_dir = %q\n",
			limits, strings.Join(engine, "\n"), filepath.Join(dir, "networks")),
		"storage.conf": fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n",
			filepath.Join(dir, "root"), filepath.Join(dir, "run")),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	environment = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"),
		"CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"), "VERSION="+version,
		"SOURCE_DATE_EPOCH="+epoch, "BUILDER=podman")
	return nil
}

// ulimits are limits that this process may give: podman's own defaults can be higher than the hard
// limits of a virtual machine without CAP_SYS_RESOURCE.
func ulimits() (string, error) {
	const rlimitNPROC = 6 // not in package syscall
	var files, processes syscall.Rlimit
	err := errors.Join(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files), syscall.Getrlimit(rlimitNPROC, &processes))
	nofile, nproc := min(1024, files.Max), min(4096, processes.Max)
	return fmt.Sprintf(`"nofile=%d:%d", "nproc=%d:%d"`, nofile, nofile, nproc, nproc), err
}

// command runs a program at the root of the repository, and returns what it prints.
func command(name string, arguments ...string) (string, error) {
	c := exec.Command(name, arguments...)
	c.Dir, c.Env = root, environment
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(arguments, " "), err,
			stdout.String(), stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// podman runs podman and returns what it prints.
func podman(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := command("podman", arguments...)
	require.NoError(t, err)
	return output
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

// logs are both outputs of a container.
func logs(name string) string {
	c := exec.Command("podman", "logs", name)
	c.Env = environment
	output, _ := c.CombinedOutput()
	return string(output)
}

// eventually asks until the condition is met, and fails with its last word after the time.
func eventually(t *testing.T, within time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
	}
}

// freePort is a port on loopback that nobody listens on.
func freePort(t *testing.T) string { return strings.TrimPrefix(fixture.FreeAddress(t), "127.0.0.1:") }

// file is one entry of a volume or an image.
type file struct {
	header  *tar.Header
	content []byte
}

// readTar reads what podman exports, by cleaned path.
func readTar(t *testing.T, path string) map[string]file {
	t.Helper()
	archive, err := os.Open(path)
	require.NoError(t, err)
	defer archive.Close()
	files := map[string]file{}
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		content, err := io.ReadAll(reader)
		require.NoError(t, err)
		files[filepath.Clean(header.Name)] = file{header, content}
	}
}

// volume reads a named volume.
func volume(t *testing.T, name string) map[string]file {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume.tar")
	podman(t, "volume", "export", "--output", path, name)
	return readTar(t, path)
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
