package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// start starts all components, and returns when the node is ready.
func start() error {
	begin := time.Now()
	if err := identities(); err != nil {
		return err
	}
	if err := configuration(); err != nil {
		return err
	}
	if err := serveImages(); err != nil {
		return err
	}
	kubeconfig := "--kubeconfig=" + state + "/admin.conf"
	file := func(name string) string { return filepath.Join(state, name) }
	for _, c := range []struct {
		args  []string
		ready []string // succeeds when the next one may be started
	}{
		{args: []string{"etcd", "--data-dir=" + file("etcd"), "--unsafe-no-fsync",
			"--listen-peer-urls=http://127.0.0.1:2380"}},
		{args: []string{"containerd", "--config=" + file("containerd.toml")}},
		{args: []string{"kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
			"--advertise-address=" + address, "--service-cluster-ip-range=10.96.0.0/16",
			"--authorization-mode=Node,RBAC", "--client-ca-file=" + file("ca.crt"),
			"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
			"--kubelet-client-certificate=" + file("admin.crt"), "--kubelet-client-key=" + file("admin.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + file("apiserver.crt"),
			"--service-account-signing-key-file=" + file("apiserver.key"),
			// Injection: beta in 1.34, and off by default.
			"--feature-gates=MutatingAdmissionPolicy=true",
			"--runtime-config=admissionregistration.k8s.io/v1beta1=true",
		}, ready: []string{"kubectl", "get", "--raw=/readyz"}},
		{args: []string{"kube-controller-manager", kubeconfig, "--leader-elect=false",
			"--root-ca-file=" + file("ca.crt"), "--service-account-private-key-file=" + file("apiserver.key")}},
		{args: []string{"kube-scheduler", kubeconfig, "--leader-elect=false"}},
		{args: []string{"kube-proxy", kubeconfig, "--hostname-override=node", "--bind-address=" + address,
			"--cluster-cidr=10.244.0.0/16", "--conntrack-max-per-core=0", // nf_conntrack_max is the machine's
			"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"}},
		{args: []string{"kubelet", kubeconfig, "--config=" + file("kubelet.yaml"), "--hostname-override=node",
			"--node-ip=" + address},
			ready: []string{"kubectl", "wait", "--for=condition=Ready", "--timeout=2s", "node/node"}},
		{args: []string{"networkpolicies", file("admin.conf"), "node"},
			ready: []string{"grep", "--quiet", "^ *100 ", "/proc/net/netfilter/nfnetlink_queue"}},
	} {
		if err := run(nil, c.args...); err != nil {
			return err
		}
		if err := try(2*time.Minute, c.ready...); err != nil {
			return fmt.Errorf("%s: %w", c.args[0], err)
		}
	}
	if err := serveNames(); err != nil {
		return err
	}
	// The CA stands outside of the cluster, as CAs do.
	if err := run([]string{"DEVCA_ADDR=" + address + ":8080", "DEVCA_RV=RA", "DEVCA_IAK=secret of the cluster",
		"DEVCA_CA_FILE=" + file("ca.pem")}, file("images/devca")); err != nil {
		return err
	}
	// Pods cannot be made before the controllers have seen the namespace.
	if err := try(time.Minute, "kubectl", "get", "serviceaccount/default", "configmap/kube-root-ca.crt"); err != nil {
		return err
	}
	fmt.Printf("Kubernetes is ready after %.0f s\n", time.Since(begin).Seconds())
	return nil
}

// run starts a component; its output goes to a file of its name. Its end is fatal for the tests, which will say so.
func run(environment []string, args ...string) error {
	log, err := os.Create(filepath.Join(logs, filepath.Base(args[0])+".log"))
	if err != nil {
		return err
	}
	command := exec.Command(args[0], args[1:]...)
	command.Env = append(os.Environ(), environment...)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	go func() {
		fmt.Fprintf(os.Stderr, "%s ended: %v; logs of all components: %s\n", args[0], command.Wait(), logs)
		os.Exit(1)
	}()
	return nil
}

// try repeats a command until it succeeds; no command always does.
func try(limit time.Duration, args ...string) error {
	if len(args) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s for %s: %w: %s", strings.Join(args, " "), limit, err, bytes.TrimSpace(out))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// configuration writes the files that containerd and the kubelet are configured by.
func configuration() error {
	for name, text := range map[string]string{
		"containerd.toml": `
version = 2
root = "STATE/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "STATE/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.example.org/pause:1.0"
restrict_oom_score_adj = true # root may lack CAP_SYS_RESOURCE
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "PLUGINS"
conf_dir = "STATE/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "STATE/registries"
`,
		// Every registry is the one that the test serves.
		"registries/_default/hosts.toml": `
[host."http://REGISTRY"]
capabilities = ["pull", "resolve"]
`,
		// Packets between pods pass through the node, where kube-proxy's rules are: a bridge would need br_netfilter.
		"cni/10-pods.conflist": `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
	{"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]],
		"routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}},
	{"type": "portmap", "capabilities": {"portMappings": true}}]}
`,
		"resolv.conf": "",
		"kubelet.yaml": `
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: STATE/ca.crt}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /CGROUP
clusterDNS: [ADDRESS]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {memory.available: 1Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
resolvConf: STATE/resolv.conf
serializeImagePulls: false
syncFrequency: 2s
`,
	} {
		text = strings.NewReplacer("STATE", state, "PLUGINS", plugins(), "REGISTRY", registryAddress, "CGROUP", cgroup,
			"ADDRESS", address).Replace(text)
		path := filepath.Join(state, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
