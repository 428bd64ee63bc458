package output

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// settle brings the volume to rest after a run that was stopped: it finishes a committed
// publication of either layout and removes what was not committed. What that changes for readers
// is kept for the next Publication, also when it fails. On a volume at rest it only looks.
func (v *Volume) settle(d disk) error {
	for _, name := range []string{stageDir, dataTemporary, linkTemporary, journalTemporary} {
		if d.Exists(name) {
			err := d.remove(name)
			if errors.Is(err, fs.ErrPermission) && name == stageDir {
				err = d.setAside(stageDir)
			}
			if err != nil {
				return err
			}
		}
	}
	for _, name := range v.replacedNames() {
		if d.IsDirectory(name) {
			if err := d.moveAside(name, "it is a directory"); err != nil { // no rename can replace it
				return err
			}
		}
	}
	// A ..commit beside a ..data: the layout was being changed, and the commit is the later one.
	if d.Exists(commitDir) {
		v.cfg.Log.Info("completing a publication that was interrupted", "path", d.Dir)
		if err := v.markPending(d); err != nil {
			return err
		}
		v.differs("a publication was interrupted")
		return v.finishInplace(d)
	}
	current := d.generation()
	if current == "" {
		return v.removeOld(d, "", "")
	}
	corrected, err := v.linkVisible(d, current)
	v.differs(corrected...)
	if err != nil {
		return err
	}
	return v.removeOld(d, current, "")
}

// differs keeps differences for the next Publication.
func (v *Volume) differs(differences ...string) {
	for _, difference := range differences {
		if !slices.Contains(v.differences, difference) {
			v.differences = append(v.differences, difference)
		}
	}
}

// setAsideBefore is later than all names that setAside gives.
const setAsideBefore = "..1971"

// setAside gives a stage that only another user can remove the name of a generation older than
// all: like those, it is tried again later, and nothing depends on its absence.
func (d disk) setAside(name string) error {
	for old := time.Unix(0, 0).UTC(); ; old = old.Add(time.Millisecond) {
		if to := old.Format(generationLayout); !d.Exists(to) {
			return d.Rename(name, to)
		}
	}
}

// write publishes the set in the configured layout, unless now shows that it is there.
func (v *Volume) write(d disk, s *set, now snapshot) (Publication, error) {
	differing, differences := v.differing(s, now)
	if fault := v.layoutFault(now); fault != nil && len(differing) == 0 {
		differences = append(differences, fault.Error())
	}
	if len(differences) == 0 {
		return v.publication(), nil
	}
	if err := v.inTheWay(d); err != nil {
		return Publication{}, err
	}
	if err := v.markPending(d); err != nil {
		return Publication{}, err
	}
	committed := false
	commit := func() {
		committed, v.published = true, s
		v.differs(differences...)
	}
	var err error
	if v.cfg.Layout == LayoutSymlink {
		err = v.publishSymlink(d, s, now, commit)
	} else {
		err = v.publishInplace(d, s, differing, commit)
	}
	switch {
	case err == nil:
		return v.publication(), nil
	case committed:
		return Publication{}, &IncompleteError{err}
	}
	// Space that a failed publication holds may be what another needs. When this fails as well, the
	// next settle does it; the first error is the one to know.
	_ = d.remove(stageDir)
	_ = v.settle(d)
	return Publication{}, err
}

// replacedNames are those that renames must take.
func (v *Volume) replacedNames() []string {
	names := []string{dataLink}
	if v.cfg.Layout == LayoutInplace {
		names = append(names, noteName)
	}
	for _, f := range filesOf(v.cfg.Types) {
		names = append(names, f.Name)
	}
	return names
}

// inTheWay refuses a volume where a directory that settle could not
// move aside, or a mount, has a name that a rename must take, before
// anything is written: it would stop the publication half-way.
func (v *Volume) inTheWay(d disk) error {
	dir, err := d.Root.Open(".")
	if err != nil {
		return files.NewError(files.OpOpen, v.cfg.Dir, err)
	}
	defer dir.Close()
	for _, name := range v.replacedNames() {
		if d.IsDirectory(name) {
			return files.NewError(files.OpRename, d.Path(name), syscall.EISDIR)
		}
		if files.IsMounted(dir, name) {
			return files.NewError(files.OpRename, d.Path(name), syscall.EBUSY)
		}
	}
	return nil
}
