package certservice

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.yaml.in/yaml/v3"
)

var openAPI = sync.OnceValue(func() (document map[string]any) {
	if err := yaml.Unmarshal(openAPIDocument, &document); err != nil {
		panic(err)
	}
	return document
})

// follow returns a part of a node of the OpenAPI document; a reference is followed.
func follow(node any, names ...string) map[string]any {
	part, _ := node.(map[string]any)
	if ref, ok := part["$ref"].(string); ok {
		part = follow(openAPI(), strings.Split(ref, "/")[1:]...)
	}
	if len(names) == 0 {
		return part
	}
	return follow(part[names[0]], names[1:]...)
}

func TestOpenAPI_document_listsTheHandlersPathsAndParameters(t *testing.T) {
	assert.Equal(t, "3.1.0", openAPI()["openapi"])
	var paths []string
	for _, e := range endpoints {
		paths = append(paths, e.path)
	}
	assert.ElementsMatch(t, paths, slices.Collect(maps.Keys(follow(openAPI(), "paths"))))
	for _, path := range paths {
		item := follow(openAPI(), "paths", path)
		var got, want []string
		for _, in := range []map[string]any{item, follow(item, "get")} {
			parameters, _ := in["parameters"].([]any)
			for _, parameter := range parameters {
				p := follow(parameter)
				assert.Equal(t, true, p["required"], path)
				got = append(got, p["in"].(string)+" "+p["name"].(string))
			}
		}
		switch path {
		case "/v1/certificate/{caName}":
			want = []string{"header CSR", "header PK", "path caName"}
		case "/v1/certificate-update/{caName}":
			want = []string{"header CSR", "header OLD_CERT", "header OLD_PK", "header PK", "path caName"}
		}
		slices.Sort(got)
		assert.Equal(t, want, got, path)
		delete(item, "parameters")
		assert.Equal(t, []string{"get"}, slices.Collect(maps.Keys(item)), path)
	}
	r := newService(t, goldenAuthority(t), nil).get("/openapi.yaml", nil)
	assert.Equal(t, "application/yaml", r.Header.Get("Content-Type"))
	assert.Equal(t, string(openAPIDocument), r.text)
}

// TestOpenAPI_document_listsTheHandlersAnswers provokes every status that each operation can answer, and
// compares them and their bodies with the document, which may list neither more nor fewer.
func TestOpenAPI_document_listsTheHandlersAnswers(t *testing.T) {
	_, header := goldenRequest(t, "update")
	directory := &switchDirectory{}
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = directory })
	s.handler.reloads.every = 0

	seen := map[string]bool{} // path and status
	ask := func(path string, client *http.Client, header http.Header) {
		t.Helper()
		r := s.do(client, http.MethodGet, strings.ReplaceAll(path, caNameParameter, "RA"), header, "")
		place := path + " " + strconv.Itoa(r.StatusCode)
		seen[place] = true
		spec := follow(openAPI(), "paths", path, "get", "responses", strconv.Itoa(r.StatusCode))
		schema := follow(spec, "content", r.Header.Get("Content-Type"), "schema")
		if !assert.NotNil(t, schema, "%s is not in the document, with its content type", place) {
			return
		}
		required, _ := schema["required"].([]any)
		for _, property := range required {
			assert.Contains(t, r.text, `"`+property.(string)+`":`, place)
			assert.Contains(t, follow(schema, "properties"), property)
		}
		for name, h := range follow(spec, "headers") {
			assert.True(t, follow(h)["required"] != true || r.Header.Get(name) != "", "%s is without %s", place, name)
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
	for _, e := range endpoints {
		for status := range follow(openAPI(), "paths", e.path, "get", "responses") {
			assert.True(t, seen[e.path+" "+status], "%s never answered %s, which the document lists", e.path, status)
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
