//go:build containers

package containers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const root = "../.."

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

// TestContainers runs the scripts of testdata, those of the images before those that run them, with a podman of the
// test's own.
func TestContainers(t *testing.T) {
	fixture.RequirePrograms(t, "podman", "podman-compose", "openssl")
	if os.Geteuid() != 0 {
		fixture.SkipWithout(t, "a user who may run containers (root)")
	}
	require.NoError(t, configure())
	require.NoError(t, command(root+"/deploy/images/build.sh"))
	for _, name := range []string{"images", "containers"} {
		t.Run(name, func(t *testing.T) {
			fixture.RunScripts(t, testscript.Params{
				Dir: fixture.Scripts(t, "testdata/"+name+".txtar"), Setup: setUp, Cmds: commands})
		})
	}
}

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
		"CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"), "VERSION=0.0.0-test",
		"SOURCE_DATE_EPOCH=1700000000", "BUILDER=podman",
		"ROOT="+fixture.Must(filepath.Abs(root)), "TESTDATA="+fixture.Must(filepath.Abs("testdata")))
	return err
}

// command runs a program with the test's podman.
func command(name string, arguments ...string) error {
	c := exec.Command(name, arguments...)
	c.Env = environment
	if output, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(arguments, " "), err, output)
	}
	return nil
}

// cleanUp takes down whatever is left and forgets all images.
func cleanUp() error {
	for _, arguments := range [][]string{
		{"pod", "rm", "--all", "--force"}, {"rm", "--all", "--force", "--time", "1"},
		{"network", "prune", "--force"}, {"rmi", "--all", "--force"},
	} {
		if err := command("podman", arguments...); err != nil {
			return err
		}
	}
	// Overlay storage is mounted on itself.
	_ = syscall.Unmount(filepath.Join(dir, "root", "overlay"), 0)
	return os.RemoveAll(dir)
}

// setUp gives a script a directory that the users of containers may read, a port PORT of loopback on which no one
// listens, a name NETWORK for a network, and one side of mutual TLS each in CLIENT and SERVER.
func setUp(env *testscript.Env) error {
	t := env.T().(testing.TB)
	own, err := os.MkdirTemp(dir, "stack-")
	if err != nil {
		return err
	}
	env.Vars = append(env.Vars, environment...)
	env.Setenv("NETWORK", filepath.Base(own))
	env.Setenv("PORT", strings.TrimPrefix(fixture.FreeAddress(t), "127.0.0.1:"))
	transport := fixture.Must(fixture.NewCA("Transport"))
	for _, side := range []string{"CLIENT", "SERVER"} {
		env.Setenv(side, filepath.Join(own, side))
		err = errors.Join(err, writeIdentity(transport, filepath.Join(own, side)))
	}
	return errors.Join(err, command("chmod", "-R", "a+rX", own))
}

// writeIdentity writes one side of mutual TLS into a new directory, as the keys of the Secrets for Kubernetes.
func writeIdentity(transport *fixture.CA, into string) error {
	err := transport.WriteIdentity(into, "oom-cert-service", "oom-cert-service")
	for from, to := range map[string]string{
		"client.jks": "keystore.jks", "client-key.pem": "tls.key", "client-certificate.pem": "tls.crt",
		"truststore.pem": "ca.crt",
	} {
		err = errors.Join(err, os.Rename(filepath.Join(into, from), filepath.Join(into, to)))
	}
	for _, store := range []string{"keystore", "truststore"} {
		password := filepath.Join(into, store+"-password")
		err = errors.Join(err, os.WriteFile(password, []byte(fixture.Password), 0o644))
	}
	return err
}

// commands are those of the scripts, besides testscript's own.
var commands = map[string]func(ts *testscript.TestScript, neg bool, arguments []string){
	// eventually COMMAND... runs a program again and again until it succeeds.
	"eventually": func(ts *testscript.TestScript, _ bool, arguments []string) {
		for end := time.Now().Add(90 * time.Second); ; time.Sleep(250 * time.Millisecond) {
			err := ts.Exec(arguments[0], arguments[1:]...)
			if err == nil || time.Now().After(end) {
				ts.Check(err)
				return
			}
		}
	},
	// hardened OPTION... runs a container under the flags of the restricted Pod Security Standard. Podman would mount
	// writable directories over a read-only root; Kubernetes does not.
	"hardened": func(ts *testscript.TestScript, neg bool, options []string) {
		err := ts.Exec("podman", append(strings.Fields("run --read-only --read-only-tmpfs=false --user 65532:65532 "+
			"--cap-drop=all --security-opt=no-new-privileges"), options...)...)
		if (err != nil) != neg {
			ts.Fatalf("podman run %v: %v", options, err)
		}
	},
	// confined CONTAINER looks at a running one from outside: what the kernel says of its process.
	"confined": func(ts *testscript.TestScript, _ bool, containers []string) {
		for _, name := range containers {
			ts.Check(ts.Exec("podman", "inspect", "--format", "{{.State.Pid}} {{.HostConfig.ReadonlyRootfs}}", name))
			pid, readOnly, _ := strings.Cut(strings.TrimSpace(ts.ReadFile("stdout")), " ")
			status := string(fixture.Must(os.ReadFile("/proc/" + pid + "/status")))
			for _, line := range []string{
				"Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000",
				"CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
			} {
				if readOnly != "true" || !strings.Contains(status, "\n"+line+"\n") {
					ts.Fatalf("%s is not confined: read-only %s, %q in %s", name, readOnly, line, status)
				}
			}
		}
	},
}
