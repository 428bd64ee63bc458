package manifests

import (
	"maps"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/certfetcher/certfetcher/test/fixture"
)

type object = map[string]any

// plain are the objects of everything without their types, as a rule sees them.
func plain(t *testing.T) map[string][]object {
	t.Helper()
	places := map[string][]object{}
	for place, objects := range everything(t) {
		places[place] = plainOf(t, objects)
	}
	return places
}

func plainOf(t *testing.T, objects []runtime.Object) (all []object) {
	t.Helper()
	for _, o := range objects {
		all = append(all, fixture.Must(runtime.DefaultUnstructuredConverter.ToUnstructured(o)))
	}
	return all
}

// subjects are what a rule is said of, as the variables that it knows.
func subjects(places map[string][]object, each string) (found []object) {
	for place, objects := range places {
		add := func(is bool, subject object) {
			if is {
				maps.Copy(subject, object{"places": places, "place": place, "objects": objects})
				found = append(found, subject)
			}
		}
		add(each == "place", object{})
		for _, o := range objects {
			add(o["kind"] == each, object{"object": o})
			pod := o
			if o["kind"] != "Pod" {
				pod, _, _ = unstructured.NestedMap(o, "spec", "template")
			}
			add(pod != nil && each == "pod", object{"pod": pod})
			for _, list := range []string{"initContainers", "containers"} {
				containers, _, _ := unstructured.NestedSlice(pod, "spec", list)
				for _, c := range containers {
					add(each == "container", object{"pod": pod, "container": c})
				}
			}
		}
	}
	return found
}

func TestRules_hold(t *testing.T) {
	var rows []struct{ Rule, Each, Where, Holds string }
	readCases(t, "rules.yaml", &rows)
	options := []cel.EnvOption{cel.OptionalTypes(), ext.TwoVarComprehensions(), ext.Strings()}
	for _, name := range []string{"place", "places", "objects", "object", "pod", "container"} {
		options = append(options, cel.Variable(name, cel.DynType))
	}
	env := fixture.Must(cel.NewEnv(options...))
	says := func(t *testing.T, expression string, subject object) bool {
		t.Helper()
		ast, issues := env.Compile(expression)
		require.NoError(t, issues.Err())
		program := fixture.Must(env.Program(ast))
		result, _, err := program.Eval(subject)
		return assert.NoError(t, err, "%s", subject["place"]) && result.Value() == true
	}
	places := plain(t)
	for _, row := range rows {
		t.Run(row.Rule, func(t *testing.T) {
			seen := 0
			for _, subject := range subjects(places, row.Each) {
				if row.Where == "" || says(t, row.Where, subject) {
					seen++
					assert.True(t, says(t, row.Holds, subject), "not in %s", subject["place"])
				}
			}
			assert.NotZero(t, seen, "nothing is of this kind")
		})
	}
}
