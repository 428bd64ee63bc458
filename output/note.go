package output

import (
	"slices"

	"github.com/certfetcher/certfetcher/internal/files"
)

// noteName is the file of Bundle.Note. In the symlink layout it stands beside the files of its
// generation and has no visible link; in the inplace layout it stands at the top of the volume.
// Two dots keep it from readers' globs, and a release that does not know it ignores it.
const noteName = "..request"

func noteContent(note []byte) *content {
	return &content{name: noteName, data: note, mode: publicMode, kept: publicMode}
}

// ours tells whether publications give the name to a file, the note included.
func ours(name string) bool { return name == noteName || isPublished(name) }

// note is the note in a snapshot; nil where there is none, or what is there cannot be one.
func (s snapshot) note() []byte {
	if s.noted.err != nil || len(s.noted.data) > NoteLimit {
		return nil
	}
	return slices.Clone(s.noted.data)
}

// noteDifference says what is wrong with the note of a set; empty when nothing is. Its mode and
// group are not compared: only this program reads it.
func (s *set) noteDifference(now snapshot) string {
	switch {
	case len(s.bundle.Note) == 0 || now.noted.holds(s.bundle.Note):
		return ""
	case now.noted.err == nil && now.noted.data == nil:
		return "is missing"
	}
	return "has another content"
}

// ReadNote reads the Bundle.Note of what is published in a directory, in either layout; empty when
// there is none. It changes nothing.
func ReadNote(dir string) []byte {
	opened, err := files.OpenDisk(dir, files.Inherit, nil)
	if err != nil {
		return nil
	}
	defer opened.Close()
	return disk{Disk: opened}.lookUndisturbed().note()
}
