//go:build hosts

package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const root = "../.."

// debian is what the host has of Debian, besides the least; certfetcher's packages want none of it.
const debian = "systemd,systemd-sysv,dbus,nginx-light,openssl,procps"

var bin string

func TestMain(m *testing.M) { fixture.RunTests(m, &bin) }

// host is a container that systemd has booted.
type host struct {
	dir  string // its root directory
	init int    // its first process
}

func TestHosts(t *testing.T) {
	if os.Geteuid() != 0 {
		fixture.SkipWithout(t, "root's rights")
	}
	fixture.RequirePrograms(t, "mmdebstrap", "systemd-nspawn", "nsenter")
	h := boot(t)
	h.prepare(t)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := h.command("journalctl", "--no-pager", "--lines", "60").CombinedOutput()
			t.Logf("%s", out)
		}
	})
	fixture.RunScripts(t, testscript.Params{Dir: "testdata", Cmds: map[string]func(
		ts *testscript.TestScript, neg bool, args []string){
		"host": h.run, "eventually": h.eventually, "documented": h.documented,
	}})
}

// boot makes a host and waits until systemd has started what there is.
func boot(t *testing.T) *host {
	t.Helper()
	h := &host{dir: filepath.Join(t.TempDir(), "root")}
	output := func(name string, args ...string) {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
	}
	output("mmdebstrap", "--quiet", "--variant=minbase", "--include="+debian, "bookworm", h.dir)
	nspawn := exec.Command("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--boot",
		"--console=passive", "--machine=certfetcher-host", "--directory="+h.dir)
	log, err := os.Create(filepath.Join(t.TempDir(), "console.log"))
	require.NoError(t, err)
	nspawn.Stdout, nspawn.Stderr = log, log
	require.NoError(t, nspawn.Start())
	t.Cleanup(func() {
		if h.init > 0 {
			_ = syscall.Kill(h.init, syscall.Signal(34+4)) // SIGRTMIN+4: systemd powers off
		}
		ended := make(chan struct{})
		go func() { _ = nspawn.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = nspawn.Process.Kill()
			<-ended
		}
	})
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", nspawn.Process.Pid))
		fields := strings.Fields(string(text))
		if len(fields) == 0 {
			return false
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			return false
		}
		h.init = pid
		out, _ := h.command("systemctl", "is-system-running").Output()
		state := strings.TrimSpace(string(out))
		return state == "running" || state == "degraded"
	}, 90*time.Second, 200*time.Millisecond, "the host does not boot: see %s", log.Name())
	return h
}

// command is one that runs on the host.
func (h *host) command(args ...string) *exec.Cmd {
	inside := []string{"--target=" + strconv.Itoa(h.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"--root", "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
		"sh", "-c", `cd && exec "$@"`, "sh"}
	return exec.Command("nsenter", append(inside, args...)...)
}

// prepare brings the packages, two versions of them, a CA, and the identities of mutual TLS.
func (h *host) prepare(t *testing.T) {
	t.Helper()
	home := filepath.Join(h.dir, "root")
	for _, version := range []string{"1.0.0", "1.1.0"} {
		build := exec.Command(root+"/deploy/packages/build.sh", home)
		build.Env = append(os.Environ(), "VERSION="+version)
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	// Debian's smallest has no such file.
	require.NoError(t, os.WriteFile(filepath.Join(h.dir, "etc/hosts"), []byte("127.0.0.1 localhost\n"), 0o644))
	ca := fixture.Must(fixture.NewCA("Transport"))
	for name, common := range map[string]string{"server": "localhost", "client": "app"} {
		require.NoError(t, ca.WriteIdentity(filepath.Join(home, name), common, "localhost"))
	}
	devca := fixture.Must(os.ReadFile(filepath.Join(bin, "devca")))
	require.NoError(t, os.WriteFile(filepath.Join(h.dir, "usr/local/bin/devca"), devca, 0o755))
	servers := fmt.Sprintf(`{"cmpv2Servers": [{"caName": %q, "url": "http://127.0.0.1:8829/pkix/",
		"issuerDN": "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		"authentication": {"iak": "secret", "rv": "RA"},
		"trustAnchors": "/etc/certservice/devca.pem"}]}`, fixture.CAName)
	require.NoError(t, os.WriteFile(filepath.Join(home, "cmpServers.json"), []byte(servers), 0o600))
	text := string(fixture.Must(os.ReadFile(root + "/docs/hosts.md")))
	_, file, found := strings.Cut(text, "<!-- app.env -->\n```text\n")
	require.True(t, found)
	file, _, _ = strings.Cut(file, "```")
	require.NoError(t, os.WriteFile(filepath.Join(home, "app.env"), []byte(file), 0o600))
}

// run runs a command of the host.
func (h *host) run(ts *testscript.TestScript, neg bool, args []string) {
	command := h.command(args...)
	ts.Check(finish(ts, command, neg))
}

// finish runs a command as testscript's exec does, so that "stdout" and "stderr" look at what it printed.
func finish(ts *testscript.TestScript, command *exec.Cmd, neg bool) error {
	err := ts.Exec(command.Args[0], command.Args[1:]...)
	switch {
	case neg && err == nil:
		return errors.New("the command should fail")
	case !neg:
		return err
	}
	return nil
}

// eventually repeats a command of the host until it succeeds, for half a minute.
func (h *host) eventually(ts *testscript.TestScript, _ bool, args []string) {
	command := h.command(args...)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if err := ts.Exec(command.Args[0], command.Args[1:]...); err == nil {
			return
		} else if time.Now().After(end) {
			ts.Fatalf("not after half a minute: %v", err)
		}
	}
}

// documented runs the commands of a section of docs/hosts.md on the host.
func (h *host) documented(ts *testscript.TestScript, _ bool, args []string) {
	text := string(fixture.Must(os.ReadFile(root + "/docs/hosts.md")))
	_, section, found := strings.Cut(text, "\n## "+args[0]+"\n")
	if !found {
		ts.Fatalf("docs/hosts.md has no section %q", args[0])
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, block := range strings.Split(section, "```sh\n")[1:] {
		commands, _, _ := strings.Cut(block, "```")
		ts.Logf("%s", commands)
		command := h.command("sh", "-euc", commands)
		ts.Check(ts.Exec(command.Args[0], command.Args[1:]...))
	}
}
