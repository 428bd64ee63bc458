// Package cluster runs everything in a real Kubernetes on one machine: etcd, containerd and the five programs of
// Kubernetes, which this module builds from source. "make cluster" starts it, runs the scripts of testdata, and
// removes it. It wants root and Debian's packages containerd, etcd-server, runc, containernetworking-plugins,
// conntrack, iptables, iproute2 and openssl. The first build takes a quarter of an hour of a processor.
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
// One node. Cluster DNS is a server of the test's own (A records of Services), images come from a registry in the
// test's process, and nothing enforces NetworkPolicies. The kubelet looks for changed Secrets every two seconds instead
// of once a minute. There is no metrics-server, so that the HorizontalPodAutoscaler keeps its minimum.
package cluster
