package manifests

import (
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const injectionChart = "certfetcher-injection"

// injectionCase is a pod of testdata/injection/pods.yaml, and what becomes of it.
type injectionCase struct {
	Name, Namespace, PodName, GenerateName string
	// Annotations are below the domain, Foreign those that are not.
	Annotations, Foreign, Labels map[string]string
	Spec                         corev1.PodSpec
	Golden, Refused              string
	Untouched                    bool
}

func injectionCases(t *testing.T) (rows []injectionCase) {
	t.Helper()
	readCases(t, "injection/pods.yaml", &rows)
	require.NotEmpty(t, rows)
	return rows
}

// pod is what a user creates, or a controller for them.
func (c injectionCase) pod(domain string) *corev1.Pod {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Spec: *c.Spec.DeepCopy()}
	pod.Name, pod.GenerateName, pod.Namespace = c.PodName, c.GenerateName, c.namespace()
	pod.Labels = maps.Clone(c.Labels)
	if pod.Name == "" && pod.GenerateName == "" {
		pod.Name = "app"
	}
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "app"}}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers { // the restricted Pod Security Standard
			containers[i].SecurityContext = &corev1.SecurityContext{
				RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false),
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			}
		}
	}
	pod.Annotations = maps.Clone(c.Foreign)
	for name, value := range c.Annotations {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[domain+"/"+name] = strings.Replace(value, "ENDLESS", strings.Repeat("/", 10_000), 1)
	}
	return pod
}

func (c injectionCase) namespace() string {
	if c.Namespace == "" {
		return "payments"
	}
	return c.Namespace
}

// injection is an API server with the objects that the manifests of the directory render, in the namespaces of the
// cases.
func injection(t *testing.T, dir string) *apiServer {
	t.Helper()
	policies := decode(t, dir, kustomize(t, deploy+"/kubernetes/"+dir))
	return startAPIServer(t, append(policies, injectionNamespaces(t)...))
}

func injectionNamespaces(t *testing.T) []runtime.Object {
	t.Helper()
	return decode(t, "namespaces", readFile(t, "testdata/injection/namespaces.yaml"))
}

func asYAML(t *testing.T, object any) string {
	t.Helper()
	return string(fixture.Must(yaml.Marshal(object)))
}

func TestInjection_pods(t *testing.T) {
	for _, dir := range []string{"injection", "injection-v1"} {
		server := injection(t, dir)
		for _, row := range injectionCases(t) {
			t.Run(dir+"/"+row.Name, func(t *testing.T) {
				pod := row.pod("certfetcher.io")
				err := server.admit(t, row.namespace(), pod, nil)
				assert.Equal(t, row.Refused, refusal(t, err))
				if row.Untouched {
					assert.Equal(t, row.pod("certfetcher.io"), pod)
				}
				if row.Golden == "" {
					return
				}
				golden.File(t, "injection/"+row.Golden+".golden.yaml", asYAML(t, pod))

				again := pod.DeepCopy()
				again.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
				require.NoError(t, server.admit(t, row.namespace(), again, nil), "a copy of the pod that runs")
				again.TypeMeta = pod.TypeMeta
				assert.Equal(t, pod, again)
			})
		}
	}
}

// injectedPods are the cases that are injected, by the names of their golden files.
func injectedPods(t *testing.T) map[string]corev1.PodTemplateSpec {
	t.Helper()
	found := map[string]corev1.PodTemplateSpec{}
	for _, path := range fixture.Must(filepath.Glob("testdata/injection/*.golden.yaml")) {
		var pod corev1.Pod
		require.NoError(t, yaml.UnmarshalStrict([]byte(readFile(t, path)), &pod))
		found[filepath.Base(path)] = corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
	}
	require.NotEmpty(t, found)
	return found
}

// Workloads are asked when they are applied, so that a fault is not first seen in the events of a ReplicaSet; what is
// there already is not held up.
func TestInjection_otherObjects(t *testing.T) {
	var rows []struct {
		Name, Refused string
		Old, New      map[string]any
		Has           []string
	}
	readCases(t, "injection/others.yaml", &rows)
	server := injection(t, "injection")
	read := func(object map[string]any) runtime.Object {
		if object == nil {
			return nil
		}
		return decode(t, "others.yaml", asYAML(t, object))[0]
	}
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			message := refusal(t, server.admit(t, "payments", read(row.New), read(row.Old)))
			for _, part := range row.Has {
				assert.Contains(t, message, part)
			}
			if len(row.Has) == 0 {
				assert.Equal(t, row.Refused, message)
			}
		})
	}
}

// What the document's example asks for is injected, by its own parameters.
func TestInjection_example_isInjected(t *testing.T) {
	objects := everything(t)["kubernetes/examples/injected.yaml"]
	policies := decode(t, "injection", kustomize(t, deploy+"/kubernetes/injection"))
	server := startAPIServer(t, append(policies, objects...))
	template := example(t, "injected.yaml")
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	pod.ObjectMeta, pod.Spec = template.ObjectMeta, template.Spec
	pod.GenerateName = "app-7d4b9-"
	require.NoError(t, server.admit(t, "payments", pod, nil))
	assert.Equal(t, "certfetcher", pod.Spec.InitContainers[0].Name)
}

// With another domain, label and names the same is injected, and the usual annotations mean nothing.
func TestInjection_ownNames(t *testing.T) {
	values := map[string]any{"apiVersion": "v1", "name": "own", "domain": "pki.example.org", "parametersName": "pki",
		"namespaceLabel": map[string]any{"name": "pki", "value": "yes"},
		"image":          "registry.example.org/certfetcher:1.0"}
	text := render(t, rendering{"own", chartDir(injectionChart), values, "v1.36.0", nil})
	assert.NotRegexp(t, regexp.MustCompile(`certfetcher\.io|name: certfetcher-injection`), text)
	namespaces := readFile(t, "testdata/injection/namespaces.yaml")
	namespaces = strings.NewReplacer("certfetcher.io/injection: enabled", `pki: "yes"`,
		"name: certfetcher-injection", "name: pki", "image: certfetcher:1.0", "env.LOG_LEVEL: info").Replace(namespaces)
	server := startAPIServer(t, append(decode(t, "own", text), decode(t, "namespaces", namespaces)...))
	row := injectionCases(t)[0]
	pod := row.pod("pki.example.org")
	require.NoError(t, server.admit(t, "payments", pod, nil))
	assert.Equal(t, "registry.example.org/certfetcher:1.0", pod.Spec.InitContainers[0].Image)
	assert.Equal(t, "sidecar", pod.Annotations["pki.example.org/injected"])
	usual := row.pod("certfetcher.io")
	require.NoError(t, server.admit(t, "payments", usual, nil))
	assert.Equal(t, row.pod("certfetcher.io"), usual)
}

// The policies alone, without what injects: an annotated pod must not start without its certificate.
func TestInjection_withoutTheMutatingPolicy_refuses(t *testing.T) {
	var validating []runtime.Object
	for _, object := range decode(t, "injection", kustomize(t, deploy+"/kubernetes/injection")) {
		if !strings.HasPrefix(object.GetObjectKind().GroupVersionKind().Kind, "Mutating") {
			validating = append(validating, object)
		}
	}
	server := startAPIServer(t, append(validating, injectionNamespaces(t)...))
	pod := injectionCases(t)[0].pod("certfetcher.io")
	message := refusal(t, server.admit(t, "payments", pod, nil))
	assert.Contains(t, message, "MutatingAdmissionPolicy certfetcher-injection with its binding")
}

// The chart takes the newest version that the cluster serves, and says what to do where there is none.
func TestInjection_chart_takesTheVersionThatIsServed(t *testing.T) {
	const group = "admissionregistration.k8s.io/"
	for _, row := range []struct {
		value  string
		served []string
		want   string
	}{
		{"", []string{group + "v1", group + "v1beta1", group + "v1beta1/MutatingAdmissionPolicy"}, "v1beta1"},
		{"", []string{group + "v1beta1/MutatingAdmissionPolicy", group + "v1/MutatingAdmissionPolicy"}, "v1"},
		{"v1", nil, "v1"},
		{"v1beta1", []string{group + "v1/MutatingAdmissionPolicy"}, "v1beta1"},
		{"", []string{group + "v1", group + "v1alpha1/MutatingAdmissionPolicy"}, ""},
	} {
		values := map[string]any{"apiVersion": row.value}
		r := rendering{injectionChart, chartDir(injectionChart), values, "v1.33.0", row.served}
		_, files, err := renderFiles(r)
		if row.want == "" {
			require.ErrorContains(t, err, "this cluster (Kubernetes v1.33.0) does not serve MutatingAdmissionPolicy: "+
				"Kubernetes 1.36 and later serve v1, 1.34 and 1.35 serve v1beta1 where the API server has")
			continue
		}
		require.NoError(t, err)
		want := "apiVersion: " + group + row.want + "\nkind: MutatingAdmissionPolicy"
		assert.Equal(t, 2, strings.Count(files[injectionChart+"/templates/mutating.yaml"], want), row)
		golden.File(t, "helm/certfetcher-injection.notes.golden.txt", files[injectionChart+"/templates/NOTES.txt"])
	}
}

// The kustomization has what the chart renders by default.
func TestInjection_kustomization_isTheChart(t *testing.T) {
	values := map[string]any{"apiVersion": "v1beta1"}
	text := render(t, rendering{injectionChart, chartDir(injectionChart), values, "v1.34.0", nil})
	text = strings.TrimPrefix(text, "---\n")
	golden.File(t, "../"+deploy+"/kubernetes/injection/policies.yaml", text)
}

// What the policies know is what the document lists, and the lines that it promises are all that an application needs.
func TestInjection_document_namesWhatThePoliciesKnow(t *testing.T) {
	document := readFile(t, "../../docs/injection.md")
	policies := readFile(t, deploy+"/kubernetes/injection/policies.yaml")
	name := regexp.MustCompile("`([a-z-]+)`")
	for table, known := range map[string]string{
		"<!-- parameters -->":  `\['(image', [^\]]*)'\]`,
		"<!-- annotations -->": `\['(inject', 'common-name', [^\]]*)'\]`,
	} {
		list := regexp.MustCompile(known).FindStringSubmatch(strings.Join(strings.Fields(policies), " "))
		require.NotEmpty(t, list, table)
		_, rows, found := strings.Cut(document, table+"\n")
		require.True(t, found, table)
		rows, _, _ = strings.Cut(rows, "\n\n")
		var documented []string
		for row := range strings.Lines(rows) {
			for _, match := range name.FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
				documented = append(documented, match[1])
			}
		}
		assert.ElementsMatch(t, strings.Split(list[1], "', '"), documented, table)
	}
	var lines struct{ Annotations map[string]string }
	block := namedBlocks(t, "injection.md")["application: annotations"]
	require.NoError(t, yaml.UnmarshalStrict([]byte(block), &lines))
	assert.Equal(t, 3, strings.Count(block, "\n"), "the table says so")
	pod := injectionCase{}.pod("")
	pod.Annotations = lines.Annotations
	require.NoError(t, injection(t, "injection").admit(t, "payments", pod, nil))
	assert.Equal(t, "certfetcher", pod.Spec.InitContainers[0].Name)
}
