package output

import (
	"fmt"
	"io/fs"

	"github.com/certfetcher/certfetcher/internal/files"
)

// differing lists the files of the set that the volume has not, or not with this content, mode and
// group, and says what is wrong with each; the note, where it has one, comes last.
func (v *Volume) differing(s *set, now snapshot) (differing []*content, differences []string) {
	for _, want := range s.files {
		if difference := v.difference(want, now); difference != "" {
			differing = append(differing, want)
			differences = append(differences, want.name+" "+difference)
		}
	}
	if difference := s.noteDifference(now); difference != "" {
		differing = append(differing, noteContent(s.bundle.Note))
		differences = append(differences, noteName+" "+difference)
	}
	return differing, differences
}

// difference says what is wrong with one file of a volume; empty when nothing is.
func (v *Volume) difference(want *content, now snapshot) string {
	has, exists := now.files[want.name]
	switch {
	case !exists:
		return "is missing"
	case has.err != nil:
		return has.err.Error()
	case now.layout != v.cfg.Layout:
		return fmt.Sprintf("has the layout %q, want %q", now.layout, v.cfg.Layout)
	case !has.holds(want.data):
		return "has another content"
	case has.mode != want.kept:
		return fmt.Sprintf("has mode %s, want %s", octal(has.mode), octal(want.kept))
	case v.gid != files.Inherit && has.gid != v.gid:
		return fmt.Sprintf("has group %d, want %d", has.gid, v.gid)
	}
	return ""
}

func octal(mode fs.FileMode) string { return fmt.Sprintf("%04o", uint32(mode)) }
