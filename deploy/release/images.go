package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types that go-containerregistry has no name for.
const (
	billType      = "application/vnd.cyclonedx+json"
	signatureType = "application/vnd.dev.cosign.simplesigning.v1+json"
	emptyType     = "application/vnd.oci.empty.v1+json"
	chartConfig   = "application/vnd.cncf.helm.config.v1+json"
	chartContent  = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// tagged is the annotation of a layout's manifest that has its tag.
const tagged = "org.opencontainers.image.ref.name"

// ociLayout is a directory in the format of the OCI image layout specification, with what goes into one repository.
type ociLayout struct {
	dir   string
	index v1.IndexManifest
	err   error // the first one
}

func newLayout(dir string) *ociLayout {
	return &ociLayout{dir: dir, index: v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}}
}

// blob adds content.
func (l *ociLayout) blob(mediaType types.MediaType, content []byte) v1.Descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	l.write(filepath.Join("blobs", "sha256", sum), content)
	return v1.Descriptor{
		MediaType: mediaType, Size: int64(len(content)), Digest: v1.Hash{Algorithm: "sha256", Hex: sum}}
}

func (l *ociLayout) write(name string, content []byte) {
	at := filepath.Join(l.dir, name)
	if l.err == nil {
		l.err = os.MkdirAll(filepath.Dir(at), 0o755)
	}
	if l.err == nil {
		l.err = os.WriteFile(at, content, 0o644)
	}
}

// manifest adds a manifest, or any other value as JSON.
func (l *ociLayout) manifest(mediaType types.MediaType, value any) v1.Descriptor {
	return l.blob(mediaType, encode(value))
}

// tag has the layout name a manifest.
func (l *ociLayout) tag(d v1.Descriptor, name string) {
	d.Annotations = map[string]string{tagged: name}
	l.index.Manifests = append(l.index.Manifests, d)
}

// close writes what names everything else.
func (l *ociLayout) close() error {
	l.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	l.write("index.json", encode(l.index))
	return l.err
}

// encode makes JSON of values that always have one.
func encode(value any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}

// packImages makes for each program an index of its images, one for each machine, with signatures and bills of
// materials.
func (r *release) packImages() error {
	recipes, err := readRecipes("Dockerfile", map[string]string{"VERSION": r.version, "REVISION": r.revision,
		"CREATED": r.time.Format(time.RFC3339)})
	if err != nil {
		return err
	}
	r.digests = map[string]string{}
	for _, program := range programs {
		recipe := recipes[program]
		if recipe == nil {
			return fmt.Errorf("the Dockerfile has no image %s", program)
		}
		if err := r.packImage(program, recipe); err != nil {
			return fmt.Errorf("%s: %w", program, err)
		}
	}
	return nil
}

func (r *release) packImage(program string, recipe *recipe) error {
	l := newLayout(r.path("oci", program))
	all := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Annotations: recipe.labels}
	for _, p := range linux {
		layer, err := r.layer(recipe, p)
		if err != nil {
			return err
		}
		compressed := compress(layer)
		config := v1.ConfigFile{
			Architecture: p.arch, OS: p.os, Created: v1.Time{Time: r.time},
			Config: v1.Config{User: recipe.user, Entrypoint: recipe.entrypoint, Env: recipe.env,
				ExposedPorts: recipe.ports, Labels: recipe.labels},
			RootFS: v1.RootFS{Type: "layers",
				DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(layer))}}},
			History: []v1.History{{Created: v1.Time{Time: r.time}, CreatedBy: "make release"}},
		}
		image := l.manifest(types.OCIManifestSchema1, v1.Manifest{
			SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: recipe.labels,
			Config: l.manifest(types.OCIConfigJSON, config),
			Layers: []v1.Descriptor{l.blob(types.OCILayer, compressed)},
		})
		// The tags that cosign looks for have the digest, so what belongs to an image comes after it.
		r.signManifest(l, image, r.prefix+program)
		if err := r.attachBill(l, image, program, p); err != nil {
			return err
		}
		image.Platform = &v1.Platform{OS: p.os, Architecture: p.arch}
		all.Manifests = append(all.Manifests, image)
	}
	index := l.manifest(types.OCIImageIndex, all)
	l.tag(index, r.version)
	r.signManifest(l, index, r.prefix+program)
	r.digests[program] = index.Digest.String()
	return l.close()
}

// layer is the one layer of an image.
func (r *release) layer(recipe *recipe, p platform) ([]byte, error) {
	var entries []entry
	for _, c := range recipe.copies {
		e := entry{name: strings.Trim(c.to, "/"), mode: 0o755}
		if c.owned {
			e.owner = owner
		}
		from := strings.TrimPrefix(c.from, "/out/")
		if from == "empty/" {
			e.mode |= fs.ModeDir
			var parents []entry
			for dir := path.Dir(e.name); dir != "."; dir = path.Dir(dir) {
				parents = append([]entry{{name: dir, mode: fs.ModeDir | 0o755}}, parents...)
			}
			entries = append(entries, parents...)
		} else {
			e.path = filepath.Join(r.stage(), p.String(), from)
		}
		entries = append(entries, e)
	}
	return pack(entries, r.time)
}

// attachBill writes the bill of materials of an image, that of its program in a container, beside those of the
// programs, and attaches it to the image as a referrer.
func (r *release) attachBill(l *ociLayout, image v1.Descriptor, program string, p platform) error {
	content, err := os.ReadFile(r.path("sbom", program+"_"+p.String()+".cdx.json"))
	if err != nil {
		return err
	}
	var bill map[string]any
	if err := json.Unmarshal(content, &bill); err != nil {
		return err
	}
	metadata, _ := bill["metadata"].(map[string]any)
	application, _ := metadata["component"].(map[string]any)
	if application == nil {
		return fmt.Errorf("the bill of materials of %s names no program", program)
	}
	reference := "pkg:oci/" + program + "@" + strings.Replace(image.Digest.String(), ":", "%3A", 1) + "?arch=" + p.arch
	metadata["component"] = map[string]any{"bom-ref": reference, "type": "container", "name": r.prefix + program,
		"version": r.version, "purl": reference}
	components, _ := bill["components"].([]any)
	bill["components"] = append([]any{application}, components...)
	dependencies, _ := bill["dependencies"].([]any)
	bill["dependencies"] = append(dependencies,
		map[string]any{"ref": reference, "dependsOn": []any{application["bom-ref"]}})
	text, err := json.MarshalIndent(bill, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	name := fmt.Sprintf("image_%s_%s.cdx.json", program, p)
	layer := l.blob(billType, text)
	layer.Annotations = map[string]string{"org.opencontainers.image.title": name}
	subject := image
	attached := l.manifest(types.OCIManifestSchema1, artifact{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: billType,
		Config: l.blob(emptyType, []byte("{}")), Layers: []v1.Descriptor{layer}, Subject: &subject,
	})
	l.tag(attached, "sbom-"+r.version+"-"+p.arch)
	return r.write(filepath.Join("sbom", name), text)
}

// artifact is v1.Manifest with the type of an artifact, which go-containerregistry does not have.
type artifact struct {
	SchemaVersion int64             `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        v1.Descriptor     `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Subject       *v1.Descriptor    `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}
