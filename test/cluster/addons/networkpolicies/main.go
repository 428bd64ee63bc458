// Networkpolicies enforces NetworkPolicies on a node, with the controller that is kind's, too. Netfilter asks it about
// the first packet of each connection from a pod.
//
//	networkpolicies KUBECONFIG NODE
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "networkpolicies:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, node string) error {
	if err := divert(); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(client, factory.Networking().V1().NetworkPolicies(),
		factory.Core().V1().Namespaces(), factory.Core().V1().Pods(), nil, nil, nil, nil,
		networkpolicy.Config{NodeName: node, QueueID: queue})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	return controller.Run(ctx)
}

const queue = 100

// divert has netfilter put packets into the queue: those to other pods, and those to the node, of which the controller
// leaves out the latter. It does so by nftables, for which many kernels lack the module nft_queue; iptables' one is
// older. Packets from the node itself, such as the kubelet's probes, are let through.
func divert() error {
	for _, from := range []string{"FORWARD", "INPUT -i veth+"} {
		rule := fmt.Sprintf("-t mangle -A %s -m conntrack --ctstate NEW -j NFQUEUE --queue-num %d", from, queue)
		if out, err := exec.Command("iptables", strings.Fields(rule)...).CombinedOutput(); err != nil {
			return fmt.Errorf("iptables %s: %w: %s", rule, err, out)
		}
	}
	return nil
}
