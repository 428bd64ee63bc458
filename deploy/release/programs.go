package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// platform is a machine that programs are built for.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "_" + p.arch }

// platforms are those of the programs. Images are for Linux; on darwin the tools are of use.
var (
	linux     = []platform{{"linux", "amd64"}, {"linux", "arm64"}}
	platforms = append(linux[:len(linux):len(linux)], platform{"darwin", "amd64"}, platform{"darwin", "arm64"})
	programs  = []string{"certfetcher", "certservice", "devca"}
)

// buildPrograms builds the programs for all platforms into the stage, and their bills of materials into sbom.
func (r *release) buildPrograms() error {
	stage, err := filepath.Abs(r.stage())
	if err != nil {
		return err
	}
	for _, p := range platforms {
		out := filepath.Join(stage, p.String())
		build := exec.Command("deploy/images/programs.sh", append([]string{out}, programs...)...)
		build.Env = append(os.Environ(), "GOOS="+p.os, "GOARCH="+p.arch, "VERSION="+r.version,
			// Variables of this machine that would change the programs.
			"GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "MAKEFLAGS=", "GNUMAKEFLAGS=")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building for %s: %w", p, err)
		}
		for _, name := range programs {
			bill, err := os.ReadFile(filepath.Join(out, name+".cdx.json"))
			if err == nil {
				err = r.write(filepath.Join("sbom", name+"_"+p.String()+".cdx.json"), bill)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// packPackages packs the programs for Linux as Debian packages.
func (r *release) packPackages() error {
	stage, err := filepath.Abs(r.stage())
	if err != nil {
		return err
	}
	for _, p := range linux {
		pack := exec.Command("deploy/packages/build.sh", r.dir)
		pack.Env = append(os.Environ(), "GOARCH="+p.arch, "VERSION="+r.version,
			"PROGRAMS="+filepath.Join(stage, p.String()),
			fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.time.Unix()), "MAKEFLAGS=", "GNUMAKEFLAGS=")
		pack.Stdout, pack.Stderr = os.Stderr, os.Stderr
		if err := pack.Run(); err != nil {
			return fmt.Errorf("packing for %s: %w", p, err)
		}
	}
	return nil
}

// packArchives packs the programs of each platform, with licence and README, into one archive.
func (r *release) packArchives() error {
	for _, p := range platforms {
		name := "certfetcher_" + r.version + "_" + p.String()
		entries := []entry{}
		for _, file := range []string{"LICENSE", "README.md", "docs/licences.md"} {
			entries = append(entries, entry{name: name + "/" + filepath.Base(file), path: file, mode: 0o644})
		}
		for _, program := range programs {
			entries = append(entries,
				entry{name: name + "/" + program, path: filepath.Join(r.stage(), p.String(), program), mode: 0o755})
		}
		archive, err := pack(entries, r.time)
		if err == nil {
			err = r.write(name+".tar.gz", compress(archive))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry is a file or directory of an archive.
type entry struct {
	name    string
	path    string // of the content; none for a directory
	content []byte // in place of a path
	mode    fs.FileMode
	owner   int
}

// pack makes a tar archive in which nothing depends on this machine.
func pack(entries []entry, modified time.Time) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: int64(e.mode.Perm()), Uid: e.owner, Gid: e.owner, ModTime: modified,
			Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		content := e.content
		switch {
		case e.mode.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, e.name+"/"
		case e.path != "":
			var err error
			if content, err = os.ReadFile(e.path); err != nil {
				return nil, err
			}
		}
		header.Size = int64(len(content))
		err := w.WriteHeader(header)
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return archive.Bytes(), err
}

// compress compresses in memory, which cannot fail.
func compress(content []byte) []byte {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := w.Write(content)
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return compressed.Bytes()
}
