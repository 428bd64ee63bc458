package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// oldest is the version whose CEL Kubernetes 1.34 takes in a new policy: that of the release before it.
var oldest = version.MajorMinor(1, 33)

// expressions are those of a policy, compiled as the API server does when the policy is applied.
type expressions struct {
	t        *testing.T
	compiler *plugincel.CompositedCompiler
	options  plugincel.OptionalVariableDeclarations
}

func compile(t *testing.T, conditions []admissionv1.MatchCondition, variables []admissionv1.Variable,
	params bool) expressions {
	t.Helper()
	env := environment.MustBaseEnvSet(oldest)
	options := plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}
	for _, condition := range conditions { // which know no variables
		accessor := matchconditions.MatchCondition(condition)
		result := plugincel.NewCompiler(env).CompileCELExpression(&accessor, options, environment.NewExpressions)
		assert.Nil(t, result.Error, condition.Name)
	}
	compiler := fixture.Must(plugincel.NewCompositedCompiler(env))
	for _, v := range variables {
		accessor := &validating.Variable{Name: v.Name, Expression: v.Expression}
		result := compiler.CompileAndStoreVariable(accessor, options, environment.NewExpressions)
		assert.Nil(t, result.Error, v.Name)
	}
	return expressions{t, compiler, options}
}

// evaluate returns the value of an expression for an object, and what it and the variables in it cost.
func (e expressions) evaluate(expression plugincel.ExpressionAccessor, object runtime.Object, resource string,
	params runtime.Object) (any, int64) {
	e.t.Helper()
	options := e.options
	_, options.HasPatchTypes = expression.(*patch.JSONPatchCondition)
	evaluator := e.compiler.CompileMutatingEvaluator(expression, options, environment.NewExpressions)
	require.Empty(e.t, evaluator.CompilationErrors())
	gvk := object.GetObjectKind().GroupVersionKind()
	gvr := schema.GroupVersionResource{Version: "v1", Resource: resource}
	attributes := admission.NewAttributesRecord(object, nil, gvk, "payments", "app", gvr, "", admission.Create, nil,
		false, nil)
	interfaces := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	versioned, err := admission.NewVersionedAttributes(attributes, gvk, interfaces)
	require.NoError(e.t, err)
	request := plugincel.CreateAdmissionRequest(attributes, metav1.GroupVersionResource(gvr),
		metav1.GroupVersionKind(gvk))
	ctx := e.compiler.CreateContext(e.t.Context())
	bindings := plugincel.OptionalVariableBindings{VersionedParams: params}
	result, left, err := evaluator.ForInput(ctx, versioned, request, bindings, &corev1.Namespace{},
		celconfig.RuntimeCELCostBudget)
	require.NoError(e.t, err)
	require.NoError(e.t, result.Error)
	return result.EvalResult.Value(), celconfig.RuntimeCELCostBudget - left
}

// largest are a pod and parameters far beyond what people write: 20 init containers and 30 containers with 20 mounts
// each, and all variables of certfetcher, half of them by annotation.
func largest(t *testing.T) (*corev1.Pod, *corev1.ConfigMap) {
	t.Helper()
	row := injectionCase{Annotations: map[string]string{"inject": "sidecar", "common-name": strings.Repeat("a", 64),
		"sans": strings.Repeat("www.example.org,", 100) + "a", "output-type": "P12,JKS,PEM", "ca": "RA"}}
	params := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		Data: map[string]string{"image": "a", "fs-group": "1", "run-as-user": "1"}}
	for i, name := range slices.Sorted(maps.Keys(variables(t, "certfetcher"))) {
		if i%2 == 0 {
			row.Annotations["env."+name] = ":8082" + strings.Repeat("$", 100)
		} else {
			params.Data["env."+name] = "/a" + strings.Repeat("$", 100)
		}
	}
	row.Annotations["env.HEALTH_ADDR"], row.Annotations["env.OUTPUT_PATH"] = ":8082", "/var/run/certs"
	row.Annotations["env.STATE"] = "Skane"
	for _, name := range []string{"MODE", "COMMON_NAME", "SANS", "OUTPUT_TYPE", "CA_NAME", "POD_UID"} {
		delete(row.Annotations, "env."+name)
	}
	for name := range row.Annotations {
		if strings.HasSuffix(name, "PASSWORD") || strings.HasSuffix(name, "SECRET") {
			delete(row.Annotations, name)
		}
	}
	pod := row.pod("certfetcher.io")
	containers := func(prefix string, n int) (all []corev1.Container) {
		for i := range n {
			c := corev1.Container{Name: fmt.Sprint(prefix, i), Image: "a"}
			for j := range 20 {
				mount := corev1.VolumeMount{Name: "data", MountPath: fmt.Sprint("/data", j)}
				c.VolumeMounts = append(c.VolumeMounts, mount)
				c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: int32(9000 + j)})
			}
			all = append(all, c)
		}
		return all
	}
	pod.Spec.InitContainers, pod.Spec.Containers = containers("init", 20), containers("app", 30)
	pod.Spec.Volumes = []corev1.Volume{{Name: "data"}}
	return pod, params
}

// Kubernetes 1.34 takes all expressions, and for the largest pod they cost less than a tenth of what it allows.
func TestInjection_expressions_compileAndCostLittle(t *testing.T) {
	pod, params := largest(t)
	for _, object := range decode(t, "injection", kustomize(t, deploy+"/kubernetes/injection-v1")) {
		switch o := object.(type) {
		case *admissionv1.MutatingAdmissionPolicy:
			e := compile(t, o.Spec.MatchConditions, o.Spec.Variables, true)
			none := &validating.ValidationCondition{Expression: "variables.problems.size() == 0"}
			injected, _ := e.evaluate(none, pod, "pods", params)
			assert.Equal(t, true, injected)
			for _, mutation := range o.Spec.Mutations {
				assert.NotRegexp(t, `value: \[\s*Object`, mutation.JSONPatch.Expression, "1.34 cannot convert it")
				expression := &patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}
				_, cost := e.evaluate(expression, pod, "pods", params)
				t.Log(o.Name, "costs", cost)
				assert.Less(t, cost, int64(celconfig.RuntimeCELCostBudget/10))
			}
		case *admissionv1.ValidatingAdmissionPolicy:
			e := compile(t, o.Spec.MatchConditions, o.Spec.Variables, false)
			var subject runtime.Object = pod
			resource := "pods"
			if strings.HasSuffix(o.Name, "-parameters") {
				subject, resource = params, "configmaps"
			}
			for _, v := range o.Spec.Validations {
				condition := &validating.ValidationCondition{Expression: v.Expression}
				message := &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
				_, cost := e.evaluate(condition, subject, resource, nil)
				_, more := e.evaluate(message, subject, resource, nil)
				t.Log(o.Name, "costs", cost+more)
				assert.Less(t, cost+more, int64(celconfig.RuntimeCELCostBudget/10))
			}
		}
	}
}
