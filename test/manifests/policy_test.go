package manifests

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const policies = "../../internal/policy/testdata/"

func policySchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	document := fixture.Must(jsonschema.UnmarshalJSON(bytes.NewReader(policy.Schema())))
	require.NoError(t, compiler.AddResource("policy.json", document))
	return fixture.Must(compiler.Compile("policy.json"))
}

func TestPolicySchema_acceptsWhatTheParserDoes(t *testing.T) {
	files := fixture.Must(filepath.Glob(policies + "policies/*.yaml"))
	require.NotEmpty(t, files)
	for _, path := range files {
		var value any
		require.NoError(t, yaml.Unmarshal(fixture.Must(os.ReadFile(path)), &value))
		assert.NoError(t, policySchema(t).Validate(value), path)
	}
}

// Of faults in a value the schema finds each one, at its place; it knows nothing of what only a
// parser can see.
func TestPolicySchema_faults(t *testing.T) {
	schema := policySchema(t)
	counts := map[string]int{}
	for title, text := range readFaults(t) {
		what, _, _ := strings.Cut(title, ":")
		if counts[what]++; what == "YAML" {
			continue
		}
		file := []byte(fixture.PolicyText(text))
		var value any
		require.NoError(t, yaml.Unmarshal(file, &value), title)
		_, err := policy.Parse(file)
		faults, _ := errors.AsType[policy.Faults](err)
		schemaErr := schema.Validate(value)
		if what == "Meaning" {
			assert.NoError(t, schemaErr, title)
			continue
		}
		places := map[string]bool{}
		invalid, ok := errors.AsType[*jsonschema.ValidationError](schemaErr)
		if !assert.True(t, ok, "the schema finds nothing wrong in %q", title) {
			continue
		}
		collectPlaces(invalid, places)
		for _, fault := range faults {
			assert.True(t, places[pointer(fault.Place)], "%s: the schema sees %v, and not %v", title, places, fault)
		}
	}
	for _, what := range []string{"YAML", "Value", "Meaning"} {
		assert.Greater(t, counts[what], 10, what)
	}
}

// readFaults returns the commands of each text in faults.txt, by its title.
func readFaults(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, section := range strings.Split("\n"+string(fixture.Must(os.ReadFile(policies+"faults.txt"))), "\n# ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, ">") {
				texts[title] += line
			}
		}
	}
	return texts
}

func collectPlaces(e *jsonschema.ValidationError, places map[string]bool) {
	if _, isReference := e.ErrorKind.(*kind.Reference); !isReference || len(e.Causes) == 0 {
		places["/"+strings.Join(e.InstanceLocation, "/")] = true
	}
	for _, cause := range e.Causes {
		collectPlaces(cause, places)
	}
}

var element = regexp.MustCompile(`\[(\d+)\]`)

// pointer writes a place such as rules[0].allow as JSON does.
func pointer(place string) string {
	return "/" + strings.ReplaceAll(element.ReplaceAllString(place, ".$1"), ".", "/")
}
