package certservice

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// document is what the tests read of the OpenAPI document.
type document struct {
	OpenAPI    string
	Paths      map[string]map[string]yaml.Node
	Components struct {
		Parameters map[string]parameter
		Responses  map[string]responseSpec
		Schemas    map[string]struct {
			Required   []string
			Properties map[string]any
		}
	}
}

type parameter struct {
	Ref      string `yaml:"$ref"`
	Name, In string
	Required bool
}

type responseSpec struct {
	Ref     string `yaml:"$ref"`
	Headers map[string]struct{ Required bool }
	Content map[string]struct {
		Schema struct {
			Ref string `yaml:"$ref"`
		}
	}
}

// operation is one method of one path, its references followed.
type operation struct {
	parameters []string // its location and its name
	responses  map[int]responseSpec
}

func readDocument(t *testing.T) (document, map[string]operation) {
	t.Helper()
	var d document
	require.NoError(t, yaml.Unmarshal(openAPIDocument, &d))
	operations := map[string]operation{}
	for path, items := range d.Paths {
		var shared []parameter
		if node, ok := items["parameters"]; ok {
			require.NoError(t, node.Decode(&shared))
			delete(items, "parameters")
		}
		for key, node := range items {
			var spec struct {
				Parameters []parameter
				Responses  map[string]responseSpec
			}
			require.NoError(t, node.Decode(&spec))
			o := operation{responses: map[int]responseSpec{}}
			for _, p := range append(spec.Parameters, shared...) {
				p = d.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
				assert.True(t, p.Required, "%s %s", path, p.Name)
				o.parameters = append(o.parameters, p.In+" "+p.Name)
			}
			slices.Sort(o.parameters)
			for status, r := range spec.Responses {
				code, err := strconv.Atoi(status)
				require.NoError(t, err)
				if r.Ref != "" {
					r = d.Components.Responses[strings.TrimPrefix(r.Ref, "#/components/responses/")]
				}
				require.NotEmpty(t, r.Content, "%s %s", path, status)
				o.responses[code] = r
			}
			operations[strings.ToUpper(key)+" "+path] = o
		}
	}
	return d, operations
}

func TestOpenAPI_document_listsTheHandlersPathsAndParameters(t *testing.T) {
	d, operations := readDocument(t)
	assert.Equal(t, "3.1.0", d.OpenAPI)
	var paths []string
	for _, e := range endpoints {
		paths = append(paths, "GET "+e.path)
	}
	assert.ElementsMatch(t, paths, slices.Collect(maps.Keys(operations)))
	for name, o := range operations {
		var want []string
		switch name {
		case "GET /v1/certificate/{caName}":
			want = []string{"header CSR", "header PK", "path caName"}
		case "GET /v1/certificate-update/{caName}":
			want = []string{"header CSR", "header OLD_CERT", "header OLD_PK", "header PK", "path caName"}
		}
		assert.Equal(t, want, o.parameters, name)
	}
	r := newService(t, goldenAuthority(t), nil).get("/openapi.yaml", nil)
	assert.Equal(t, "application/yaml", r.Header.Get("Content-Type"))
	assert.Equal(t, string(openAPIDocument), r.text)
}

// TestOpenAPI_document_listsTheHandlersAnswers provokes every status that each operation can answer, and
// compares them and their bodies with the document, which may list neither more nor fewer.
func TestOpenAPI_document_listsTheHandlersAnswers(t *testing.T) {
	d, operations := readDocument(t)
	_, header := goldenRequest(t, "update")
	directory := &switchDirectory{}
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = directory })
	s.handler.reloads.every = 0

	seen := map[string]map[int]bool{}
	ask := func(path string, client *http.Client, header http.Header) {
		t.Helper()
		name := "GET " + path
		r := s.do(client, http.MethodGet, strings.ReplaceAll(path, caNameParameter, "RA"), header, "")
		if seen[name] == nil {
			seen[name] = map[int]bool{}
		}
		seen[name][r.StatusCode] = true
		spec, ok := operations[name].responses[r.StatusCode]
		if !assert.True(t, ok, "%s answers %d, which the document does not list", name, r.StatusCode) {
			return
		}
		content, ok := spec.Content[r.Header.Get("Content-Type")]
		assert.True(t, ok, "%s answers %d as %s", name, r.StatusCode, r.Header.Get("Content-Type"))
		if schema, ok := d.Components.Schemas[strings.TrimPrefix(content.Schema.Ref, "#/components/schemas/")]; ok {
			for _, property := range schema.Required {
				assert.Contains(t, r.text, `"`+property+`":`, name)
				assert.Contains(t, schema.Properties, property)
			}
		}
		for header, h := range spec.Headers {
			assert.True(t, !h.Required || r.Header.Get(header) != "", "%s answers %d without %s", name, r.StatusCode, header)
		}
	}
	for _, e := range endpoints {
		*directory = switchDirectory{static: static{"RA": goldenAuthority(t)}}
		ask(e.path, s.client, header)
		ask(e.path, s.client, nil)
		ask(e.path, s.clientWith(), header)
		ask(e.path, s.client, http.Header{"X-Filler": {strings.Repeat("x", MaxHeaderBytes)}})
		directory.static = nil
		ask(e.path, s.client, header)
		directory.err = errors.New("bad file")
		ask(e.path, s.client, header)
		directory.static = static{"RA": failing(directory.err)}
		ask(e.path, s.client, header)
		directory.unready = true
		ask(e.path, s.client, header)
	}
	s.handler.reloads.waiting = s.handler.reloads.most
	ask("/reload", s.client, nil)
	for name, o := range operations {
		for status := range o.responses {
			assert.True(t, seen[name][status], "%s never answered %d, which the document lists", name, status)
		}
	}
}

// switchDirectory is a Directory whose answers the test changes.
type switchDirectory struct {
	static
	unready bool
	err     error
}

func (d *switchDirectory) Ready() bool         { return !d.unready }
func (d *switchDirectory) Reload(string) error { return d.err }
