package certservice

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.yaml.in/yaml/v4"
)

var openAPI = sync.OnceValue(func() (document map[string]any) {
	if err := yaml.Unmarshal(openAPIYAML, &document); err != nil {
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
		method := "get"
		if strings.HasPrefix(path, "/.well-known/cmp/") {
			method = "post"
		}
		for _, in := range []map[string]any{item, follow(item, method)} {
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
		case "/.well-known/cmp/p/{caName}":
			want = []string{"path caName"}
		case "/.well-known/cmp/p/{caName}/{operation}":
			want = []string{"path caName", "path operation"}
		}
		slices.Sort(got)
		assert.Equal(t, want, got, path)
		item = maps.Clone(item)
		delete(item, "parameters")
		assert.Equal(t, []string{method}, slices.Collect(maps.Keys(item)), path)
	}
	r := newService(t, goldenAuthority(t), nil).get("/openapi.yaml", nil)
	assert.Equal(t, "application/yaml", r.Header.Get("Content-Type"))
	assert.Equal(t, string(openAPIYAML), r.text)
}

// method is that of the endpoint in the document.
func (e endpoint) method() string {
	if e.kind == posting {
		return "post"
	}
	return "get"
}
