package manifests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
	"sigs.k8s.io/yaml"
)

// apiServer is the admission of an API server: its own plugins for policies, with the objects that they read.
type apiServer struct {
	mutate   admission.MutationInterface
	validate admission.ValidationInterface
	mapper   meta.RESTMapper
}

// withSchemas is a client of the API that serves the API server's schemas, which the mutating plugin asks for.
type withSchemas struct{ *fake.Clientset }

type schemas struct{ discovery.DiscoveryInterfaces }

func (c withSchemas) Discovery() discovery.DiscoveryInterfaces { return schemas{c.Clientset.Discovery()} }

func (schemas) OpenAPIV3() openapi.Client { return openapitest.NewEmbeddedFileClient() }

// startAPIServer has the policies among the objects obeyed. Those of v1beta1 are converted, as the API server does: the
// two versions have the same fields.
func startAPIServer(t *testing.T, objects []runtime.Object) *apiServer {
	t.Helper()
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, gvk := range []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "apps", Version: "v1", Kind: "StatefulSet"},
		{Group: "apps", Version: "v1", Kind: "DaemonSet"}, {Group: "batch", Version: "v1", Kind: "Job"},
		{Group: "batch", Version: "v1", Kind: "CronJob"},
	} {
		mapper.Add(gvk, meta.RESTScopeNamespace)
	}
	for i, object := range objects {
		objects[i] = toV1(t, object)
		setDefaults(objects[i])
	}
	client := withSchemas{fake.NewClientset(objects...)}
	factory := informers.NewSharedInformerFactory(client, 0)
	server := &apiServer{mapper: mapper}
	setup := initializer.New(client, dynamicfake.NewSimpleDynamicClient(scheme.Scheme), factory, authorizerfactory.NewAlwaysAllowAuthorizer(),
		utilfeature.DefaultFeatureGate, compatibility.DefaultBuildEffectiveVersion(), t.Context().Done(), mapper)
	mutator, err := mutating.NewPlugin(nil)
	require.NoError(t, err)
	validator, err := validating.NewPlugin(nil)
	require.NoError(t, err)
	for _, plugin := range []admission.Interface{mutator, validator} {
		setup.Initialize(plugin)
		plugin.(interface{ SetRESTMapper(meta.RESTMapper) }).SetRESTMapper(mapper)
	}
	mutator.SetEnabled(true)
	require.NoError(t, mutator.ValidateInitialization())
	require.NoError(t, validator.ValidateInitialization())
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	require.Eventually(t, func() bool { return mutator.WaitForReady() && validator.WaitForReady() },
		time.Minute, 10*time.Millisecond)
	server.mutate, server.validate = mutator, validator
	return server
}

// setDefaults fills in what the API server does when it stores a policy or a binding.
func setDefaults(object runtime.Object) {
	everywhere := func(m *admissionv1.MatchResources) {
		equivalent := admissionv1.Equivalent
		m.MatchPolicy = &equivalent
		if m.NamespaceSelector == nil {
			m.NamespaceSelector = &metav1.LabelSelector{}
		}
		m.ObjectSelector = &metav1.LabelSelector{}
		for i := range m.ResourceRules {
			all := admissionv1.AllScopes
			m.ResourceRules[i].Scope = &all
		}
	}
	switch o := object.(type) {
	case *admissionv1.MutatingAdmissionPolicy:
		everywhere(o.Spec.MatchConstraints)
	case *admissionv1.MutatingAdmissionPolicyBinding:
		everywhere(o.Spec.MatchResources)
	case *admissionv1.ValidatingAdmissionPolicy:
		everywhere(o.Spec.MatchConstraints)
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		everywhere(o.Spec.MatchResources)
	}
}

func toV1(t *testing.T, object runtime.Object) runtime.Object {
	t.Helper()
	gvk := object.GetObjectKind().GroupVersionKind()
	if gvk.Version != "v1beta1" {
		return object
	}
	text, err := yaml.Marshal(object)
	require.NoError(t, err)
	gvk.Version = "v1"
	converted, err := scheme.Scheme.New(gvk)
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict([]byte(strings.Replace(string(text), "/v1beta1", "/v1", 1)), converted))
	return converted
}

// admit asks as the API server does when the object, which may be changed, is created in the namespace, or takes the
// place of the old one.
func (s *apiServer) admit(t *testing.T, namespace string, object, old runtime.Object) error {
	t.Helper()
	gvk := object.GetObjectKind().GroupVersionKind()
	mapping, err := s.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	require.NoError(t, err)
	accessor, err := meta.Accessor(object)
	require.NoError(t, err)
	operation := admission.Create
	if old != nil {
		operation = admission.Update
	}
	attributes := admission.NewAttributesRecord(object, old, gvk, namespace, accessor.GetName(), mapping.Resource, "",
		operation, nil, false, &user.DefaultInfo{Name: "someone"})
	interfaces := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	if err := s.mutate.Admit(context.Background(), attributes, interfaces); err != nil {
		return fmt.Errorf("the mutating policy itself: %w", err)
	}
	// As in a server, all mutating plugins are asked again where one of them changed something.
	if again := attributes.GetReinvocationContext(); again.ShouldReinvoke() {
		again.SetIsReinvoke()
		if err := s.mutate.Admit(context.Background(), attributes, interfaces); err != nil {
			return fmt.Errorf("the mutating policy itself, asked again: %w", err)
		}
	}
	return s.validate.Validate(context.Background(), attributes, interfaces)
}

// refusal is what kubectl shows of a policy's answer, without the names of the policy and the object.
func refusal(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	status, is := err.(apierrors.APIStatus)
	require.True(t, is, err)
	_, message, found := strings.Cut(status.Status().Message, " denied request: ")
	require.True(t, found, status.Status().Message)
	return message
}
