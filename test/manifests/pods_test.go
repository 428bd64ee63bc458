package manifests

import (
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// pod is a pod or a template of pods.
type pod struct {
	corev1.PodTemplateSpec
	place string
	// beside are the objects that it is applied with.
	beside []runtime.Object
}

func (p pod) containers() []corev1.Container {
	return slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
}

func (p pod) container(name string) corev1.Container {
	all := p.containers()
	return all[slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == name })]
}

// program is the program of ours that a container runs, or "".
func program(c corev1.Container) string {
	name, _, _ := strings.Cut(filepath.Base(c.Image), ":")
	name, _, _ = strings.Cut(name, "@")
	if name == "certfetcher" || name == "certservice" {
		return name
	}
	return ""
}

// pods are those of everything, by place.
func pods(t *testing.T) map[string]pod {
	t.Helper()
	found := map[string]pod{}
	for place, objects := range everything(t) {
		for _, object := range objects {
			switch o := object.(type) {
			case *corev1.Pod:
				template := corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}
				name := place
				if o.Annotations["helm.sh/hook"] == "test" {
					name += ", helm test"
				}
				found[name] = pod{*template.DeepCopy(), place, objects}
			case *appsv1.Deployment:
				found[place] = pod{*o.Spec.Template.DeepCopy(), place, objects}
			}
		}
	}
	require.NotEmpty(t, found)
	return found
}

// containers are those of all pods.
func containers(t *testing.T) iter.Seq2[pod, corev1.Container] {
	return func(yield func(pod, corev1.Container) bool) {
		for p := range maps.Values(pods(t)) {
			for _, c := range p.containers() {
				if !yield(p, c) {
					return
				}
			}
		}
	}
}

// example returns the pod of an example, whose ConfigMap configures the application.
func example(t *testing.T, file string) pod {
	t.Helper()
	return pods(t)["kubernetes/examples/"+file]
}

// configMap returns the data of the ConfigMap that is applied with the pod.
func (p pod) configMap() map[string]string {
	for _, object := range p.beside {
		if m, is := object.(*corev1.ConfigMap); is {
			return m.Data
		}
	}
	return nil
}

func TestPods_satisfyTheRestrictedProfile(t *testing.T) {
	evaluator := fixture.Must(policy.NewEvaluator(policy.DefaultChecks(), nil))
	level := fixture.Must(podsecurity.ParseLevel("restricted"))
	latest := podsecurity.LevelVersion{Level: level, Version: podsecurity.LatestVersion()}
	for place, p := range pods(t) {
		for _, result := range evaluator.EvaluatePod(latest, &p.ObjectMeta, &p.Spec) {
			assert.True(t, result.Allowed, "%s: %+v", place, result)
		}
	}
}

// Helm's values by default and the kustomize base are two ways to the same pods.
func TestCertservice_chartAndBase_runTheSamePods(t *testing.T) {
	all := pods(t)
	base, chart := all["kubernetes/base"], all["helm template certservice"]
	for _, p := range []pod{base, chart} {
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "", ""
		for i := range p.Spec.TopologySpreadConstraints {
			p.Spec.TopologySpreadConstraints[i].LabelSelector = nil
		}
	}
	assert.Equal(t, base.Spec, chart.Spec)
}
