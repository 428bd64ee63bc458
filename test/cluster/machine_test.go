package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// first furnishes the namespaces, runs the tests as its child, and buries the dead: shims of containerd lose their
// parents, and become its children.
func first() (int, error) {
	if err := errors.Join(mounts(), network(), groups(), syscall.Sethostname([]byte("node"))); err != nil {
		return 1, err
	}
	for name, value := range map[string]string{"CLUSTER_STAGE": "tests", "PATH": built + ":" + os.Getenv("PATH"),
		"HOME": state, "KUBECONFIG": state + "/admin.conf"} {
		if err := os.Setenv(name, value); err != nil {
			return 1, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	tests, err := os.StartProcess(self, os.Args, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 1, err
		case pid == tests.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == tests.Pid:
			return 1, fmt.Errorf("the tests ended by %s", status.Signal())
		}
	}
}

// mounts gives this namespace directories of its own in place of those that containerd and the kubelet write to.
func mounts() error {
	const recursively = syscall.MS_REC
	err := errors.Join(
		syscall.Mount("", "/", "", recursively|syscall.MS_PRIVATE, ""), // nothing gets out
		syscall.Mount("", "/", "", recursively|syscall.MS_SHARED, ""),  // as the kubelet wants it inside
		syscall.Mount("proc", "/proc", "proc", 0, ""),
		syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		syscall.Mount(state+"/lib", "/var/lib", "", syscall.MS_BIND, ""),
		syscall.Mount(logs, "/var/log", "", syscall.MS_BIND, ""))
	// The kubelet would set these for the whole machine. It leaves alone what has the right value already.
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join("/run", strings.ReplaceAll(name, "/", "."))
		err = errors.Join(err, os.WriteFile(file, []byte(value+"\n"), 0o600),
			syscall.Mount(file, "/proc/sys/"+name, "", syscall.MS_BIND, ""))
	}
	return err
}

// network gives the node an address, and a default route, without which the addresses of Services would be refused
// before kube-proxy's rules could change them. It leads nowhere.
func network() error {
	for _, line := range []string{
		"link set lo up",
		"link add node type veth peer name nowhere",
		"link set nowhere up",
		"link set node up",
		"address add " + address + "/24 dev node",
		"route add default via 10.77.0.254",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600)
}

// groups makes the cgroup of all pods. In version 1, that of cpuset is good for nothing until it is told what it has.
func groups() error {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return os.MkdirAll("/sys/fs/cgroup/"+cgroup, 0o755)
	}
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, file := range hierarchies {
		err = errors.Join(err, os.MkdirAll(filepath.Join(filepath.Dir(file), cgroup), 0o755))
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		content, failed := os.ReadFile("/sys/fs/cgroup/cpuset/" + file)
		err = errors.Join(err, failed, os.WriteFile("/sys/fs/cgroup/cpuset/"+cgroup+"/"+file, content, 0o600))
	}
	return err
}
