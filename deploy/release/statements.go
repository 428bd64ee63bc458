package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// files returns the digests of all files of the release so far, in order, but for the stage.
func (r *release) files() (names []string, sums map[string]string, err error) {
	sums = map[string]string{}
	err = filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == r.stage() {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if d.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		name := filepath.ToSlash(strings.TrimPrefix(path, r.dir+string(filepath.Separator)))
		names = append(names, name)
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	})
	slices.Sort(names)
	return names, sums, err
}

// writeNotes writes what CHANGELOG.md says of the version, or of what is not released yet, with links that work
// anywhere, and the digests of images and charts.
func (r *release) writeNotes() error {
	content, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	text, found := section(string(content), regexp.MustCompile(`(?m)^## v?`+regexp.QuoteMeta(r.version)+`( .*)?\n`))
	if !found {
		text, found = section(string(content), regexp.MustCompile(`(?m)^## Unreleased\n`))
	}
	if !found {
		return fmt.Errorf("CHANGELOG.md has neither a section %s nor one Unreleased", r.version)
	}
	links := regexp.MustCompile(`\]\(([^):#]+\.md[^)]*)\)`)
	text = links.ReplaceAllString(text, "]("+project+"/blob/v"+r.version+"/$1)")
	var table, list strings.Builder
	for _, name := range sortedKeys(r.digests) {
		fmt.Fprintf(&table, "| `%s%s:%s` | `%s` |\n", r.prefix, name, r.version, r.digests[name])
		fmt.Fprintf(&list, "%s%s@%s\n", r.prefix, name, r.digests[name])
	}
	if err := r.write("digests.txt", []byte(list.String())); err != nil {
		return err
	}
	return r.write("RELEASE-NOTES.md", fmt.Appendf(nil, "# certfetcher %s\n\n%s\n\n## Images and charts\n\n"+
		"| reference | digest |\n|---|---|\n%s", r.version, strings.TrimSpace(text), table.String()))
}

// section is what follows a heading up to the next of its level.
func section(text string, heading *regexp.Regexp) (string, bool) {
	at := heading.FindStringIndex(text)
	if at == nil {
		return "", false
	}
	body, _, _ := strings.Cut(text[at[1]:], "\n## ")
	return body, true
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// resource is the ResourceDescriptor of in-toto.
type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// writeProvenance says what was made of what, as an in-toto statement with SLSA's predicate, and signs it as DSSE.
func (r *release) writeProvenance() error {
	names, sums, err := r.files()
	if err != nil {
		return err
	}
	var subjects []resource
	for _, name := range names {
		if !strings.HasPrefix(name, "oci/") {
			subjects = append(subjects, resource{Name: name, Digest: map[string]string{"sha256": sums[name]}})
		}
	}
	for _, name := range sortedKeys(r.digests) {
		digest := strings.TrimPrefix(r.digests[name], "sha256:")
		subjects = append(subjects, resource{Name: r.prefix + name, Digest: map[string]string{"sha256": digest}})
	}
	materials, err := r.materials()
	if err != nil {
		return err
	}
	commit := strings.TrimSuffix(r.revision, "-dirty")
	statement := map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "subject": subjects,
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": map[string]any{
			"buildDefinition": map[string]any{
				"buildType": project + "/blob/main/docs/releases.md",
				"externalParameters": map[string]any{"version": r.version, "imagePrefix": r.prefix,
					"source": resource{URI: "git+" + project, Digest: map[string]string{"gitCommit": commit}}},
				"internalParameters": map[string]any{"go": runtime.Version(), "dirty": commit != r.revision},
				"resolvedDependencies": append([]resource{
					{URI: "git+" + project, Digest: map[string]string{"gitCommit": commit}}}, materials...),
			},
			"runDetails": map[string]any{"builder": map[string]any{
				"id":      project + "/tree/" + commit + "/deploy/release",
				"version": map[string]string{"go": runtime.Version()}}},
		},
	}
	text, err := json.MarshalIndent(statement, "", "  ")
	if err != nil {
		return err
	}
	if err := r.write("provenance.json", append(text, '\n')); err != nil || r.sign == nil {
		return err
	}
	const kind = "application/vnd.in-toto+json"
	payload := encode(statement)
	signature, err := r.sign.signature(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload))
	if err != nil {
		return err
	}
	envelope := map[string]any{"payloadType": kind, "payload": base64.StdEncoding.EncodeToString(payload),
		"signatures": []map[string]string{
			{"keyid": r.sign.id(), "sig": base64.StdEncoding.EncodeToString(signature)}}}
	return r.write("provenance.intoto.jsonl", append(encode(envelope), '\n'))
}

// materials are the modules that were compiled in, with the sums of go.sum, and the compiler.
func (r *release) materials() ([]resource, error) {
	found := map[string]string{}
	for _, p := range platforms {
		for _, program := range programs {
			info, err := buildinfo.ReadFile(filepath.Join(r.stage(), p.String(), program))
			if err != nil {
				return nil, err
			}
			found["pkg:golang/std@"+info.GoVersion] = ""
			for _, module := range info.Deps {
				sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(module.Sum, "h1:"))
				if err != nil {
					return nil, fmt.Errorf("the sum of %s: %w", module.Path, err)
				}
				found["pkg:golang/"+module.Path+"@"+module.Version] = hex.EncodeToString(sum)
			}
		}
	}
	var list []resource
	for _, uri := range sortedKeys(found) {
		material := resource{URI: uri}
		if found[uri] != "" {
			material.Digest = map[string]string{"dirHash": found[uri]}
		}
		list = append(list, material)
	}
	return list, nil
}

// writeChecksums writes the digests of everything, in the format of sha256sum, and their signature, which therefore is
// that of the whole release.
func (r *release) writeChecksums() error {
	if r.sign != nil {
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: r.sign.public()})
		if err := r.write("release.pub", block); err != nil {
			return err
		}
	}
	names, sums, err := r.files()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&text, "%s  %s\n", sums[name], name)
	}
	if err := r.write("SHA256SUMS", text.Bytes()); err != nil || r.sign == nil {
		return err
	}
	signature, err := r.sign.signature(text.Bytes())
	if err != nil {
		return err
	}
	return r.write("SHA256SUMS.sig", signature)
}
