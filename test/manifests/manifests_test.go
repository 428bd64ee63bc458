// Package manifests holds what is under deploy/ against what it is for: the Kubernetes API's own types, the
// restricted profile of the Pod Security Standards, Helm's and kustomize's own code, the variables that the
// programs have, and the metrics that they export. It is a module of its own, because all of that is far
// more than the programs need. No cluster is asked.
package manifests

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	admissionregistrationv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const deploy = "../../deploy"

// decoder refuses unknown and duplicate fields, as kubectl --validate=strict does.
var decoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	builder := runtime.NewSchemeBuilder(admissionregistrationv1.AddToScheme, admissionregistrationv1beta1.AddToScheme,
		appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme, monitoring.AddToScheme,
		certmanager.AddToScheme)
	if err := builder.AddToScheme(scheme); err != nil {
		panic(err)
	}
	onap := schema.GroupVersion{Group: "certmanager.onap.org", Version: "v1"}
	scheme.AddKnownTypeWithName(onap.WithKind("CMPv2Issuer"), &unstructured.Unstructured{})
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decode returns the objects in a stream of YAML documents.
func decode(t *testing.T, name, text string) (objects []runtime.Object) {
	t.Helper()
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		if json, err := yaml.YAMLToJSON([]byte(document)); err == nil && string(json) == "null" {
			continue // comments only
		}
		object, _, err := decoder.Decode([]byte(document), nil, nil)
		require.NoError(t, err, "%s:\n%s", name, document)
		objects = append(objects, object)
	}
	return objects
}

var rendered = map[string][]runtime.Object{}

// everything returns all objects that deploy/ leads to, by where they come from: what kubectl apply -k
// renders in a directory, what apply -f reads in a file, and what helm template makes of each set of
// values. Those of a document are among them.
func everything(t *testing.T) map[string][]runtime.Object {
	t.Helper()
	if len(rendered) > 0 {
		return rendered
	}
	require.NoError(t, filepath.WalkDir(deploy, func(path string, _ fs.DirEntry, err error) error {
		place, dir := strings.TrimPrefix(path, deploy+"/"), filepath.Dir(path)
		if filepath.Ext(path) != ".yaml" {
			return err
		}
		text := readFile(t, path)
		if _, err := os.Stat(dir + "/kustomization.yaml"); err == nil {
			part := strings.Contains(text, "kind: Component\n") // of an overlay
			if filepath.Base(path) == "kustomization.yaml" && !part {
				rendered[filepath.Dir(place)] = decode(t, place, kustomize(t, dir))
			}
		} else if strings.HasPrefix(place, "kubernetes/") {
			rendered[place] = decode(t, place, text)
		}
		return nil
	}))
	for _, r := range charts(t) {
		rendered["helm template "+r.name] = decode(t, r.name, render(t, r))
	}
	blocks := slices.Sorted(maps.Values(namedBlocks(t, "cert-manager.md")))
	rendered["docs/cert-manager.md"] = decode(t, "docs", strings.Join(blocks, "---\n"))
	return rendered
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content := fixture.Must(os.ReadFile(path))
	return string(content)
}

// kustomize renders a directory as kubectl kustomize does.
func kustomize(t *testing.T, dir string) string {
	t.Helper()
	kustomizer := krusty.MakeKustomizer(krusty.MakeDefaultOptions())
	resources, err := kustomizer.Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err, dir)
	return string(fixture.Must(resources.AsYaml()))
}

func TestManifests_render_theObjectsOfTheList(t *testing.T) {
	var list strings.Builder
	all := plain(t)
	for _, place := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintln(&list, place)
		for _, o := range all[place] {
			object := unstructured.Unstructured{Object: o}
			fmt.Fprintln(&list, " ", object.GetKind(), object.GetName())
		}
	}
	golden.File(t, "objects.golden.txt", list.String())
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

// The image of EJBCA runs one of them by its path.
func TestShellScripts_areExecutable(t *testing.T) {
	for _, path := range fixture.Must(filepath.Glob(deploy + "/*/*.sh")) {
		info := fixture.Must(os.Stat(path))
		assert.Equal(t, fs.FileMode(0o111), info.Mode()&0o111, path)
	}
}
