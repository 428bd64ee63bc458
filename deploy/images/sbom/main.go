// Sbom prints the bill of materials of a Go program as CycloneDX 1.6 JSON, from what the toolchain wrote
// into it: the modules linked, their versions and checksums, and Go itself. What is not in the program,
// such as licences, is not in the bill either, and nothing in it changes from one run to the next.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

func main() {
	version := flag.String("version", "devel", "the program's version")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: sbom [-version VERSION] PROGRAM")
		os.Exit(2)
	}
	if err := write(os.Stdout, flag.Arg(0), *version); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// bom is a CycloneDX document. https://cyclonedx.org/docs/1.6/json/
type bom struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

func write(w io.Writer, path, version string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	program := component{
		Type: "application", Name: filepath.Base(path), Version: version,
		Hashes: []hash{{Algorithm: "SHA-256", Content: hex.EncodeToString(sum[:])}},
		PURL:   purl(info.Main.Path, version, strings.TrimPrefix(info.Path, info.Main.Path)),
	}
	for _, name := range []string{"GOOS", "GOARCH", "CGO_ENABLED", "-trimpath"} {
		for _, setting := range info.Settings {
			if setting.Key == name {
				program.Properties = append(program.Properties, property{"go:build:" + name, setting.Value})
			}
		}
	}
	program.Ref = program.PURL

	document := bom{Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: metadata{program}}
	document.Components = append(document.Components, library("std", strings.TrimPrefix(info.GoVersion, "go"), ""))
	for _, module := range info.Deps {
		document.Components = append(document.Components, linked(module))
	}
	uses := dependency{Ref: program.Ref}
	for _, used := range document.Components {
		uses.DependsOn = append(uses.DependsOn, used.Ref)
	}
	document.Dependencies = []dependency{uses}

	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(document)
}

// linked describes a module as it was linked: a replaced one by its replacement.
func linked(module *debug.Module) component {
	if module.Replace != nil {
		module = module.Replace
	}
	return library(module.Path, module.Version, module.Sum)
}

// library describes a module. Its sum is Go's own over the files of the module, not the hash of one
// file, so that it is a property and no hash in the sense of CycloneDX.
func library(path, version, sum string) component {
	id := purl(path, version, "")
	c := component{Type: "library", Ref: id, Name: path, Version: version, PURL: id}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}

// purl names a package as https://github.com/package-url/purl-spec says for the type golang.
func purl(module, version, subpath string) string {
	id := "pkg:golang/" + strings.ToLower(module) + "@" + strings.ReplaceAll(version, "+", "%2B")
	if subpath = strings.Trim(subpath, "/"); subpath != "" {
		id += "#" + subpath
	}
	return id
}
