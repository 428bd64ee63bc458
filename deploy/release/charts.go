package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.yaml.in/yaml/v3"
)

// packCharts packs the charts of deploy/helm with the version of the release and the digests of its images, as files
// that helm installs and as the artifacts that it pulls from registries.
func (r *release) packCharts() error {
	found, err := filepath.Glob("deploy/helm/*/Chart.yaml")
	if err == nil && len(found) == 0 {
		err = errors.New("deploy/helm has no charts")
	}
	for _, path := range found {
		if err == nil {
			err = r.packChart(filepath.Dir(path))
		}
	}
	return err
}

func (r *release) packChart(dir string) error {
	name := filepath.Base(dir)
	var entries []entry
	var metadata map[string]any
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inside := filepath.ToSlash(strings.TrimPrefix(path, dir+string(filepath.Separator)))
		switch inside {
		case "Chart.yaml":
			content, err = rewrite(content, map[string]string{"version": r.version, "appVersion": r.version})
			if err == nil {
				err = yaml.Unmarshal(content, &metadata)
			}
		case "values.yaml":
			content, err = r.pinImages(content)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		entries = append(entries, entry{name: name + "/" + inside, content: content, mode: 0o644})
		return nil
	})
	if err != nil {
		return err
	}
	for i, e := range entries { // helm expects it first
		if e.name == name+"/Chart.yaml" {
			entries[0], entries[i] = entries[i], entries[0]
		}
	}
	archive, err := pack(entries, r.time)
	if err != nil {
		return err
	}
	content := compress(archive)
	l := newLayout(r.path("oci", "charts", name))
	layer := l.blob(chartContent, content)
	annotations := map[string]string{
		"org.opencontainers.image.title": name, "org.opencontainers.image.version": r.version,
		"org.opencontainers.image.description": fmt.Sprint(metadata["description"]),
		"org.opencontainers.image.created":     r.time.Format(time.RFC3339),
		"org.opencontainers.image.revision":    r.revision,
		"org.opencontainers.image.source":      project, "org.opencontainers.image.licenses": "Apache-2.0",
	}
	manifest := l.manifest(types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: l.manifest(chartConfig, metadata), Layers: []v1.Descriptor{layer}, Annotations: annotations})
	l.tag(manifest, r.version)
	r.signManifest(l, manifest, r.prefix+"charts/"+name)
	r.digests["charts/"+name] = manifest.Digest.String()
	return errors.Join(l.close(), r.write(filepath.Join("charts", name+"-"+r.version+".tgz"), content))
}

// pinImages has values name the release's images: each mapping with "repository", "tag" and "digest", and each "image:"
// that is one reference, empty for certfetcher's.
func (r *release) pinImages(values []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return nil, err
	}
	lines := strings.SplitAfter(string(values), "\n")
	pinned := 0
	var walk func(n *yaml.Node) error
	walk = func(n *yaml.Node) error {
		if n.Kind == yaml.MappingNode {
			image := map[string]*yaml.Node{}
			for i := 0; i+1 < len(n.Content); i += 2 {
				image[n.Content[i].Value] = n.Content[i+1]
			}
			if repository, found := image["repository"]; found && r.digests[repository.Value] != "" {
				digest := r.digests[repository.Value]
				if image["tag"] == nil || image["digest"] == nil {
					return fmt.Errorf("line %d: an image has no tag or no digest", repository.Line)
				}
				// From the end of the mapping, so that places on one line stay right.
				pinned++
				return errors.Join(replace(lines, image["digest"], digest), replace(lines, image["tag"], r.version),
					replace(lines, repository, r.prefix+repository.Value))
			}
			if reference := image["image"]; reference != nil && reference.Kind == yaml.ScalarNode {
				program, _, _ := strings.Cut(reference.Value, ":")
				if program == "" {
					program = "certfetcher"
				}
				if digest := r.digests[program]; digest != "" {
					pinned++
					if err := replace(lines, reference, r.prefix+program+":"+r.version+"@"+digest); err != nil {
						return err
					}
				}
			}
		}
		for _, child := range n.Content {
			if err := walk(child); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(&document); err != nil {
		return nil, err
	}
	if pinned == 0 {
		return nil, errors.New("no image of the release is named: want a mapping with repository, tag and digest")
	}
	return []byte(strings.Join(lines, "")), nil
}

// rewrite sets keys at the top of a YAML file, which have to be there, and leaves everything else as it is.
func rewrite(content []byte, values map[string]string) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, err
	}
	lines := strings.SplitAfter(string(content), "\n")
	set := 0
	top := document.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		if value, found := values[top[i].Value]; found {
			set++
			if err := replace(lines, top[i+1], value); err != nil {
				return nil, err
			}
		}
	}
	if set != len(values) {
		return nil, fmt.Errorf("%d of the keys %v are there, want all", set, values)
	}
	return []byte(strings.Join(lines, "")), nil
}

// replace puts another text in the place of a scalar.
func replace(lines []string, scalar *yaml.Node, value string) error {
	line := lines[scalar.Line-1]
	before, after := line[:scalar.Column-1], line[scalar.Column-1:]
	old := scalar.Value
	switch {
	case scalar.Style&yaml.DoubleQuotedStyle != 0:
		old = `"` + old + `"`
	case scalar.Style&yaml.SingleQuotedStyle != 0:
		old = `'` + old + `'`
	}
	rest, found := strings.CutPrefix(after, old)
	if !found {
		return fmt.Errorf("line %d: want %s there, on one line and without escapes", scalar.Line, old)
	}
	lines[scalar.Line-1] = before + `"` + value + `"` + rest
	return nil
}
