package manifests

import (
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// pod is a pod or a template of pods.
type pod struct {
	place string
	meta  metav1.ObjectMeta
	spec  corev1.PodSpec
	// beside are the objects that it is applied with.
	beside []runtime.Object
}

func (p pod) containers() []corev1.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

func (p pod) container(name string) corev1.Container {
	all := p.containers()
	return all[slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == name })]
}

// program is the program of ours that a container runs, or "".
func program(c corev1.Container) string {
	name, _, _ := strings.Cut(c.Image[strings.LastIndexByte(c.Image, '/')+1:], ":")
	name, _, _ = strings.Cut(name, "@")
	if name == "certfetcher" || name == "certservice" {
		return name
	}
	return ""
}

func pods(t *testing.T) []pod {
	t.Helper()
	var found []pod
	all := everything(t)
	for _, place := range slices.Sorted(maps.Keys(all)) {
		for _, object := range all[place] {
			switch o := object.(type) {
			case *corev1.Pod:
				found = append(found, pod{place, o.ObjectMeta, o.Spec, all[place]})
			case *appsv1.Deployment:
				found = append(found, pod{place, o.Spec.Template.ObjectMeta, o.Spec.Template.Spec, all[place]})
				assertSelects(t, place, o.Spec.Selector, o.Spec.Template.Labels)
			}
		}
	}
	require.NotEmpty(t, found)
	return found
}

// containers are those of all pods.
func containers(t *testing.T) iter.Seq2[pod, corev1.Container] {
	return func(yield func(pod, corev1.Container) bool) {
		for _, p := range pods(t) {
			for _, c := range p.containers() {
				if !yield(p, c) {
					return
				}
			}
		}
	}
}

// of returns the objects that are of a type.
func of[T runtime.Object](objects []runtime.Object) (found []T) {
	for _, object := range objects {
		if o, is := object.(T); is {
			found = append(found, o)
		}
	}
	return found
}

func assertSelects(t *testing.T, place string, selector *metav1.LabelSelector, set map[string]string) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	require.NoError(t, err, place)
	assert.True(t, !s.Empty() && s.Matches(labels.Set(set)), "%s: selector %v, labels %v", place, s, set)
}

func TestPods_satisfyTheRestrictedProfile(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	for _, p := range pods(t) {
		for _, result := range evaluator.EvaluatePod(level, &p.meta, &p.spec) {
			assert.True(t, result.Allowed, "%s: %s: %s", p.place, result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	for p, c := range containers(t) {
		if program(c) != "" { // the profile does not ask for this
			assert.Equal(t, new(true), c.SecurityContext.ReadOnlyRootFilesystem, "%s: %s", p.place, c.Name)
		}
	}
}

// A namespace with a ResourceQuota refuses containers that say nothing of their resources.
func TestPods_containers_haveResources(t *testing.T) {
	for p, c := range containers(t) {
		if strings.HasPrefix(p.place, filepath.Join(deploy, "kubernetes")) {
			assert.False(t, c.Resources.Requests.Cpu().IsZero(), "%s: %s requests no CPU", p.place, c.Name)
			assert.False(t, c.Resources.Requests.Memory().IsZero(), "%s: %s requests no memory", p.place, c.Name)
			assert.False(t, c.Resources.Limits.Memory().IsZero(), "%s: %s has no memory limit", p.place, c.Name)
		}
	}
}

// Clients in other namespaces ask for the name with the namespace: the overlay's certificate has it.
func TestOverlays_namesOfTheServer_haveTheNamespace(t *testing.T) {
	all := everything(t)
	for _, overlay := range []string{"cert-manager", "cluster-issuer"} {
		objects := all[filepath.Join(deploy, "kubernetes/overlays", overlay)]
		var names []string
		for _, certificate := range of[*certmanager.Certificate](objects) {
			if certificate.Name == "certservice-tls" {
				names = certificate.Spec.DNSNames
			}
		}
		service := of[*corev1.Service](objects)[0]
		inNamespace := service.Name + "." + service.Namespace
		assert.Equal(t, []string{service.Name, inNamespace, inNamespace + ".svc"}, names, overlay)
	}
}

// Plug-ins that look at a packet after DNAT see the port of the DNS pod, which is not 53 everywhere.
func TestNetworkPolicies_allowDNS_onThePortsOfItsPods(t *testing.T) {
	seen := 0
	for place, objects := range everything(t) {
		for _, policy := range of[*networkingv1.NetworkPolicy](objects) {
			seen++
			allowed := map[string]bool{}
			for _, rule := range policy.Spec.Egress {
				for _, p := range rule.Ports {
					allowed[string(*p.Protocol)+" "+p.Port.String()] = true
				}
			}
			for _, port := range []string{"UDP 53", "TCP 53", "UDP 5353", "TCP 5353"} {
				assert.True(t, allowed[port], "%s: %s", place, port)
			}
		}
	}
	assert.Positive(t, seen)
}

func TestPods_whatTheyReferTo_isThere(t *testing.T) {
	for _, p := range pods(t) {
		volumes := map[string]bool{}
		for _, v := range p.spec.Volumes {
			volumes[v.Name] = true
			if v.ConfigMap != nil {
				assert.NotNil(t, p.configMap(v.ConfigMap.Name), "%s: %s", p.place, v.ConfigMap.Name)
			}
			if v.Secret != nil && v.Secret.DefaultMode != nil { // an octal number, whichever YAML reads it
				assert.Equal(t, int32(0o440), *v.Secret.DefaultMode, "%s: %s", p.place, v.Secret.SecretName)
			}
		}
		for _, c := range p.containers() {
			for _, mount := range c.VolumeMounts {
				assert.True(t, volumes[mount.Name], "%s: %s mounts %s", p.place, c.Name, mount.Name)
				assert.Empty(t, mount.SubPath, "%s: %s would not see %s change", p.place, c.Name, mount.Name)
			}
			for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if probe != nil && probe.HTTPGet != nil {
					assert.True(t, hasPort(c, probe.HTTPGet.Port), "%s: %s is probed at %s",
						p.place, c.Name, &probe.HTTPGet.Port)
				}
			}
		}
	}
}

func (p pod) configMap(name string) *corev1.ConfigMap {
	for _, m := range of[*corev1.ConfigMap](p.beside) {
		if m.Name == name {
			return m
		}
	}
	return nil
}

func hasPort(c corev1.Container, port intstr.IntOrString) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
		return p.Name == port.StrVal || p.ContainerPort == port.IntVal
	})
}

// Longer than certfetcher itself tries, or the kubelet would end it before it can say what is wrong.
func TestNativeSidecars_startupProbe_allowsForRetries(t *testing.T) {
	seen := 0
	for p, c := range containers(t) {
		if c.RestartPolicy == nil {
			continue
		}
		seen++
		require.NotNil(t, c.StartupProbe, p.place)
		assert.Equal(t, []string{"/certfetcher", "probe"}, c.StartupProbe.Exec.Command, p.place)
		assert.Greater(t, c.StartupProbe.PeriodSeconds*c.StartupProbe.FailureThreshold, int32(5*60), p.place)
		assert.Equal(t, "sidecar", p.meta.Labels["certfetcher"], "%s: the PodMonitor would not find it", p.place)
	}
	assert.Positive(t, seen)
}

// Whatever selects pods of certservice selects the ones of its Deployment, in each rendering.
func TestCertservice_everySelector_findsItsPods(t *testing.T) {
	for _, p := range pods(t) {
		if program(p.spec.Containers[0]) != "certservice" {
			continue
		}
		seen := map[string]bool{}
		for _, object := range p.beside {
			var selector *metav1.LabelSelector
			switch o := object.(type) {
			case *corev1.Service:
				selector = &metav1.LabelSelector{MatchLabels: o.Spec.Selector}
				for _, port := range o.Spec.Ports {
					assert.True(t, hasPort(p.spec.Containers[0], port.TargetPort),
						"%s: Service port %s", p.place, port.Name)
				}
			case *networkingv1.NetworkPolicy:
				selector = &o.Spec.PodSelector
			case *policyv1.PodDisruptionBudget:
				selector = o.Spec.Selector
			case *autoscalingv2.HorizontalPodAutoscaler:
				assert.GreaterOrEqual(t, *o.Spec.MinReplicas, int32(2), p.place)
				assert.Equal(t, of[*appsv1.Deployment](p.beside)[0].Name, o.Spec.ScaleTargetRef.Name, p.place)
			}
			if selector != nil {
				assertSelects(t, p.place, selector, p.meta.Labels)
			}
			seen[object.GetObjectKind().GroupVersionKind().Kind] = true
		}
		for _, spread := range p.spec.TopologySpreadConstraints {
			assertSelects(t, p.place, spread.LabelSelector, p.meta.Labels)
		}
		assert.True(t, seen["Service"] && seen["PodDisruptionBudget"], p.place)
	}
}

// Helm's values by default and the kustomize base are two ways to the same pods.
func TestCertservice_chartAndBase_runTheSamePods(t *testing.T) {
	byPlace := map[string]pod{}
	for _, p := range pods(t) {
		byPlace[p.place] = p
	}
	base, chart := byPlace[filepath.Join(deploy, "kubernetes/base")], byPlace["helm template certservice"]
	for _, p := range []pod{base, chart} {
		p.spec.Containers[0].Image, p.spec.Containers[0].ImagePullPolicy = "", ""
		for i := range p.spec.TopologySpreadConstraints {
			p.spec.TopologySpreadConstraints[i].LabelSelector = nil
		}
	}
	assert.Equal(t, base.spec, chart.spec)
}

func TestMonitors_find_the_ports_that_there_are(t *testing.T) {
	all := everything(t)
	service := of[*corev1.Service](all[filepath.Join(deploy, "kubernetes/base")])[0]
	sidecar := example(t, "native-sidecar.yaml")
	monitors := all[filepath.Join(deploy, "monitoring")]
	ofServices, ofPods := of[*monitoring.ServiceMonitor](monitors)[0], of[*monitoring.PodMonitor](monitors)[0]
	assertSelects(t, ofServices.Name, &ofServices.Spec.Selector, service.Labels)
	assert.True(t, slices.ContainsFunc(service.Spec.Ports,
		func(p corev1.ServicePort) bool { return p.Name == ofServices.Spec.Endpoints[0].Port }))
	assertSelects(t, ofPods.Name, &ofPods.Spec.Selector, sidecar.meta.Labels)
	assert.True(t, hasPort(sidecar.container("certfetcher"),
		intstr.FromString(*ofPods.Spec.PodMetricsEndpoints[0].Port)))
}
