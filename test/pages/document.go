// Package pages makes the API's page and its JSON from openapi.yaml, and tests the pages of
// certservice in a browser.
package pages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// directory has the document and what is made from it.
const directory = "../../internal/certservice"

// document is an OpenAPI document, its members in the order in which it is written.
type document struct{ root *yaml.Node }

func readDocument() (document, error) {
	text, err := os.ReadFile(filepath.Join(directory, "openapi.yaml"))
	if err != nil {
		return document{}, err
	}
	var file yaml.Node
	if err := yaml.Unmarshal(text, &file); err != nil {
		return document{}, err
	}
	return document{file.Content[0]}, nil
}

// json is the document in JSON.
func (d document) json() ([]byte, error) {
	var text bytes.Buffer
	if err := writeJSON(&text, d.root); err != nil {
		return nil, err
	}
	var indented bytes.Buffer
	err := json.Indent(&indented, text.Bytes(), "", "  ")
	return append(indented.Bytes(), '\n'), err
}

func writeJSON(to *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.AliasNode:
		return writeJSON(to, n.Alias)
	case yaml.MappingNode, yaml.SequenceNode:
		brackets := map[yaml.Kind]string{yaml.MappingNode: "{}", yaml.SequenceNode: "[]"}[n.Kind]
		to.WriteByte(brackets[0])
		for i, part := range n.Content {
			switch {
			case i > 0 && n.Kind == yaml.MappingNode && i%2 == 1:
				to.WriteByte(':')
			case i > 0:
				to.WriteByte(',')
			}
			if err := writeJSON(to, part); err != nil {
				return err
			}
		}
		to.WriteByte(brackets[1])
		return nil
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return err
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	to.Write(bytes.TrimSpace(text.Bytes()))
	return err
}

// node is a part of the document, as the template sees it. A reference is followed.
type node struct {
	document
	*yaml.Node
	Name string // its key in what it is in
	Ref  string // the last part of the reference that led here
}

func (d document) node(n *yaml.Node, name string) *node {
	ref := ""
	for n != nil {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
			continue
		}
		target := member(n, "$ref")
		if target == nil {
			break
		}
		parts := strings.Split(target.Value, "/")
		ref, n = parts[len(parts)-1], d.root
		for _, part := range parts[1:] {
			n = member(n, part)
		}
	}
	if n == nil {
		return nil
	}
	return &node{d, n, name, ref}
}

func member(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// Get is the part that the names lead to; nil: there is none.
func (n *node) Get(names ...string) *node {
	for _, name := range names {
		if n == nil {
			return nil
		}
		n = n.document.node(member(n.Node, name), name)
	}
	return n
}

// All are the parts of an object or a list.
func (n *node) All() (parts []*node) {
	if n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			parts = append(parts, n.document.node(n.Content[i+1], n.Content[i].Value))
		}
	case yaml.SequenceNode:
		for i, part := range n.Content {
			parts = append(parts, n.document.node(part, fmt.Sprint(i)))
		}
	}
	return parts
}

// Text is a scalar; "" where there is none.
func (n *node) Text() string {
	if n == nil {
		return ""
	}
	return n.Value
}

// Paragraphs are those of a text.
func (n *node) Paragraphs() (list []template.HTML) {
	for _, text := range strings.Split(strings.TrimSpace(n.Text()), "\n\n") {
		if text != "" {
			list = append(list, marked(strings.Join(strings.Fields(text), " ")))
		}
	}
	return list
}

var quoted = regexp.MustCompile("`([^`]+)`")

// marked is text as HTML, with code in backquotes.
func marked(text string) template.HTML {
	return template.HTML(quoted.ReplaceAllString(template.HTMLEscapeString(text), "<code>$1</code>"))
}

// Parameters are those of the path and of the operation.
func (o operation) Parameters() []*node {
	return append(o.Path.Get("parameters").All(), o.Get("parameters").All()...)
}

// operation is one of the API.
type operation struct {
	*node
	Path   *node
	Method string
}

// Same is the path with the same answers, whose summary says so; "": there is none.
func (o operation) Same() string {
	same, found := strings.CutPrefix(o.Get("summary").Text(), "The same as ")
	if !found {
		return ""
	}
	return same
}

// Kinds are the types of a body, with the schema.
func (n *node) Kinds() []*node { return n.Get("content").All() }

// Type describes a schema in a few words.
func (n *node) Type() string {
	if n == nil {
		return ""
	}
	text := n.Get("type").Text()
	if text == "array" {
		text += " of " + n.Get("items").Type()
	}
	for _, extra := range []string{"contentEncoding", "contentMediaType", "format"} {
		if value := n.Get(extra).Text(); value != "" {
			text += ", " + value
		}
	}
	return text
}

// Requires says whether a property has to be there.
func (n *node) Requires(property string) bool {
	for _, name := range n.Get("required").All() {
		if name.Text() == property {
			return true
		}
	}
	return false
}

// tags are the parts of the page, with their operations.
func (d document) tags() (list []tag) {
	root := d.node(d.root, "")
	for _, t := range root.Get("tags").All() {
		group := tag{Name: t.Get("name").Text()}
		for _, path := range root.Get("paths").All() {
			for _, method := range []string{"get", "post"} {
				o := operation{path.Get(method), path, strings.ToUpper(method)}
				if o.node != nil && o.Get("tags").All()[0].Text() == group.Name {
					group.Operations = append(group.Operations, o)
				}
			}
		}
		list = append(list, group)
	}
	return list
}

type tag struct {
	Name       string
	Operations []operation
}

// page is the document as HTML.
func (d document) page() ([]byte, error) {
	source, err := os.ReadFile("testdata/api.html")
	if err != nil {
		return nil, err
	}
	var style []byte
	for _, name := range []string{filepath.Join(directory, "style.css"), "testdata/api.css"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		style = append(style, text...)
	}
	parsed, err := template.New("").Funcs(template.FuncMap{
		"lower": strings.ToLower,
		"path": func(s string) template.HTML { // which may be broken before a slash
			return template.HTML(strings.ReplaceAll(template.HTMLEscapeString(s), "/", "<wbr>/"))
		},
		"title": func(s string) string { return strings.ToUpper(s[:1]) + s[1:] },
	}).Parse(strings.Replace(string(source), "STYLE", string(style), 1))
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	err = parsed.Execute(&page, map[string]any{"Root": d.node(d.root, ""), "Tags": d.tags()})
	return page.Bytes(), err
}
