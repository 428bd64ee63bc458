package output

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// file is a kind of file that this package writes.
type file struct {
	name  string
	types []string // the output types that want it
	holds secrecy
}

// secrecy is what a file's mode depends on.
type secrecy int

const (
	certificates secrecy = iota // public
	password
	privateKey
)

// catalogue lists every file there is, in the order in which the inplace layout replaces them. It is
// the order that harms a reader least who opens them meanwhile: first the passwords (which stay the
// same, unless others are configured), then whom to trust, so that nobody presents a new certificate
// that he himself does not trust yet, then the stores that hold key and chain together. keystore.pem
// is last and right after its key, because it is the file that watchers wait for. A PEM reader that
// cannot bear the moment between these two opens keystore-combined.pem.
var catalogue = []file{
	{"keystore.pass", []string{TypeP12, TypeJKS}, password},
	{"truststore.pass", []string{TypeP12, TypeJKS}, password},
	{"truststore.p12", []string{TypeP12}, certificates},
	{"truststore.jks", []string{TypeJKS}, certificates},
	{"truststore.pem", []string{TypePEM}, certificates},
	{"keystore.p12", []string{TypeP12}, privateKey},
	{"keystore.jks", []string{TypeJKS}, privateKey},
	{"keystore-combined.pem", []string{TypePEM}, privateKey},
	{"key.pem", []string{TypePEM}, privateKey},
	{"keystore.pem", []string{TypePEM}, certificates},
}

// publicMode is the mode of files that hold nothing but certificates.
const publicMode fs.FileMode = 0o644

// wantedBy tells whether one of the types has this file.
func (f file) wantedBy(types []string) bool {
	return slices.ContainsFunc(f.types, func(t string) bool { return slices.Contains(types, t) })
}

func (f file) mode(secretMode fs.FileMode) fs.FileMode {
	if f.holds == certificates {
		return publicMode
	}
	return secretMode
}

// wanted lists the files of the given types in the catalogue's order.
func wanted(types []string) []file {
	var files []file
	for _, f := range catalogue {
		if f.wantedBy(types) {
			files = append(files, f)
		}
	}
	return files
}

// known tells whether the name is one that this package gives to files.
func known(name string) bool {
	return slices.ContainsFunc(catalogue, func(f file) bool { return f.name == name })
}

// Replaces tells whether publications in the directory replace or remove the file at path: it lies there, by
// whatever way, under one of their names.
func Replaces(dir, path string) bool {
	places := []string{path}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		places = append(places, resolved)
	}
	published, err := os.Stat(dir)
	if err != nil {
		return false // nothing lies in a directory that is still to be made
	}
	return slices.ContainsFunc(places, func(place string) bool {
		holder, err := os.Stat(filepath.Dir(place))
		return err == nil && os.SameFile(published, holder) && known(filepath.Base(place))
	})
}

// content is one file with what is in it.
type content struct {
	name string
	data []byte
	mode fs.FileMode // asked for
	kept fs.FileMode // what the file system made of it
}

func newContent(f file, data []byte, secretMode fs.FileMode) content {
	mode := f.mode(secretMode)
	return content{name: f.name, data: data, mode: mode, kept: mode}
}

// set is everything that one publication writes.
type set struct {
	bundle Bundle
	files  []content // in the catalogue's order
}

// staged is what a publication of the set writes: its files, and the note where there is one.
func (s *set) staged() []content {
	staged := slices.Clone(s.files)
	if len(s.bundle.Note) > 0 {
		staged = append(staged, noteContent(s.bundle.Note))
	}
	return staged
}

func (s *set) names() []string {
	var names []string
	for _, f := range s.staged() {
		names = append(names, f.name)
	}
	return names
}

// data is the content of the named file, nil where the set has none.
func (s *set) data(name string) []byte {
	for _, f := range s.files {
		if f.name == name {
			return f.data
		}
	}
	return nil
}
