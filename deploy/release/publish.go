package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// publish copies images, charts, signatures and bills of materials to a registry, such as
// registry.example.org/certfetcher. Who may write there, docker's or podman's configuration says. Without TLS it writes
// to loopback only.
func publish(dir, registry string) error {
	oci := filepath.Join(dir, "oci")
	return filepath.WalkDir(oci, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "index.json" {
			return err
		}
		repository := strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), oci)), "/")
		return publishLayout(filepath.Dir(path), strings.TrimSuffix(registry, "/")+"/"+repository)
	})
}

func publishLayout(dir, repository string) error {
	stored, err := layout.FromPath(dir)
	if err != nil {
		return err
	}
	index, err := stored.ImageIndex()
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	keychain := remote.WithAuthFromKeychain(authn.DefaultKeychain)
	// What has a version as its tag comes last: no one should find an image without its signature.
	slices.SortStableFunc(manifest.Manifests, func(a, b v1.Descriptor) int {
		return strings.Compare(b.Annotations[tagged][:1], a.Annotations[tagged][:1])
	})
	for _, d := range manifest.Manifests {
		reference, err := name.ParseReference(repository+":"+d.Annotations[tagged], name.StrictValidation)
		if err != nil {
			return err
		}
		if d.MediaType.IsIndex() {
			all, err := index.ImageIndex(d.Digest)
			if err == nil {
				err = remote.WriteIndex(reference, all, keychain)
			}
			if err != nil {
				return err
			}
		} else {
			image, err := index.Image(d.Digest)
			if err == nil {
				err = remote.Write(reference, image, keychain)
			}
			if err != nil {
				return err
			}
		}
		fmt.Printf("%s@%s\n", reference.Name(), d.Digest)
	}
	return nil
}
