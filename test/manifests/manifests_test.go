// Package manifests holds what is under deploy/ against what it is for: the Kubernetes API's own types, the
// restricted profile of the Pod Security Standards, Helm's and kustomize's own code, the variables that the
// programs have, and the metrics that they export. It is a module of its own, because all of that is far
// more than the programs need. No cluster is asked.
package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const deploy = "../../deploy"

// decoder refuses unknown and duplicate fields, as kubectl --validate=strict does.
var decoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme,
		policyv1.AddToScheme, monitoring.AddToScheme, certmanager.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decode returns the objects in a stream of YAML documents.
func decode(t *testing.T, name string, content []byte) []runtime.Object {
	t.Helper()
	var objects []runtime.Object
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err, name)
		if onlyComments(document) {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		require.NoError(t, err, "%s:\n%s", name, document)
		objects = append(objects, object)
	}
}

func onlyComments(document []byte) bool {
	for line := range bytes.Lines(document) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && string(line) != "---" {
			return false
		}
	}
	return true
}

// kustomize renders a directory as kubectl kustomize does.
func kustomize(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err, dir)
	content, err := resources.AsYaml()
	require.NoError(t, err)
	return decode(t, dir, content)
}

// everything returns all objects that deploy/ leads to, by where they come from.
func everything(t *testing.T) map[string][]runtime.Object {
	t.Helper()
	all := map[string][]runtime.Object{}
	for _, dir := range kustomizations(t) {
		all[dir] = kustomize(t, dir)
	}
	for _, path := range plainManifests(t) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		all[path] = decode(t, path, content)
	}
	for _, c := range charts(t) {
		all["helm template "+c.name] = decode(t, c.name, []byte(render(t, c)))
	}
	return all
}

// kustomizations returns the directories that can be applied with kubectl apply -k.
func kustomizations(t *testing.T) []string {
	t.Helper()
	var dirs []string
	walk(t, deploy, func(path string) {
		if filepath.Base(path) != "kustomization.yaml" {
			return
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		if !bytes.Contains(content, []byte("kind: Component\n")) { // rendered as part of an overlay
			dirs = append(dirs, filepath.Dir(path))
		}
	})
	require.NotEmpty(t, dirs)
	return dirs
}

// plainManifests returns the files that can be applied with kubectl apply -f.
func plainManifests(t *testing.T) []string {
	t.Helper()
	var paths []string
	walk(t, deploy+"/kubernetes", func(path string) {
		isYAML := strings.HasSuffix(path, ".yaml")
		_, err := os.Stat(filepath.Join(filepath.Dir(path), "kustomization.yaml"))
		if isYAML && errors.Is(err, fs.ErrNotExist) {
			paths = append(paths, path)
		}
	})
	require.NotEmpty(t, paths)
	return paths
}

func walk(t *testing.T, root string, visit func(path string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			visit(path)
		}
		return err
	}))
}

func TestManifests_everyKind_isThere(t *testing.T) {
	kinds := map[string]bool{}
	for _, objects := range everything(t) {
		for _, object := range objects {
			kinds[object.GetObjectKind().GroupVersionKind().Kind] = true
		}
	}
	for _, kind := range []string{
		"Deployment", "Service", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler",
		"Certificate", "Issuer", "ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap",
		"Secret", "Namespace", "Pod",
	} {
		assert.True(t, kinds[kind], kind)
	}
}

func TestDecode_whatKubectlWouldRefuse_isRefused(t *testing.T) {
	for lines, want := range map[string]string{
		"spec: {hostname: a, Hostname: b}": `unknown field "spec.Hostname"`,
		"spec: {runAsUser: 1}":             `unknown field "spec.runAsUser"`,
		"kind: Pod":                        `line 3: key "kind" already set in map`,
	} {
		_, _, err := decoder.Decode([]byte("apiVersion: v1\nkind: Pod\n"+lines+"\n"), nil, nil)
		require.ErrorContains(t, err, "strict decoding error: ")
		require.ErrorContains(t, err, want)
	}
}
