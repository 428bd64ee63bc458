// Package cluster runs everything in a real Kubernetes on one machine: etcd, containerd and the five programs of
// Kubernetes, which this module builds from source, as it builds cert-manager and what enforces NetworkPolicies. "make
// cluster" starts it, runs the scripts of testdata, and removes it. It wants root and Debian's packages containerd,
// etcd-server, runc, containernetworking-plugins, conntrack, iptables, iproute2 and openssl. The first build takes a
// quarter of an hour of a processor.
//
// # How it leaves nothing behind
//
// All of it lives in namespaces of its own: of processes, so that the kernel ends every one of them with the first, be
// it after Ctrl-C or a crash; of mounts, where /run, /var/lib and /var/log are directories of the test; of network,
// with a node at 10.77.0.1 that reaches no other machine. Directories of cgroups are the one thing that outlives them;
// they are removed at the end, and before a start.
//
// # What is not as in production
//
// One node. Cluster DNS is a server of the test's own (A records of Services), and images come from a registry in the
// test's process. The kubelet looks for changed Secrets every two seconds instead of once a minute. There is no
// metrics-server, so that the HorizontalPodAutoscaler keeps its minimum.
//
// NetworkPolicies are enforced by the code that kind has for it. It learns of a pod's address from the API server: the
// first packet of a new pod may come too early, and is sent again by TCP a second later.
//
// Of cert-manager those controllers run that issue certificates by self-signed issuers and CAs: in a process of the
// node, with all rights. Its webhook does not run, so that only the CRDs check the objects.
package cluster
