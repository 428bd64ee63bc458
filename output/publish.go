package output

import (
	"errors"
	"io/fs"
	"syscall"
	"time"
)

// settle brings the volume to rest after a run that was stopped: it finishes a committed publication of
// either layout and removes what was not committed. healed tells whether that changed what readers
// see. On a volume at rest it only looks.
func (v *Volume) settle(d disk) (healed bool, err error) {
	for _, name := range []string{stageDir, dataTemporary, linkTemporary} {
		if d.exists(name) {
			err := d.remove(name)
			if errors.Is(err, fs.ErrPermission) && name == stageDir {
				err = d.setAside(stageDir)
			}
			if err != nil {
				return false, err
			}
		}
	}
	// A ..commit beside a ..data: the layout was being changed, and the commit is the later one.
	if d.exists(commitDir) {
		v.cfg.Log.Info("completing a publication that was interrupted", "path", d.dir)
		return true, v.finishInplace(d)
	}
	current := d.generation()
	if current == "" {
		return false, v.removeGenerations(d)
	}
	if healed, err = v.linkVisible(d, current); err != nil {
		return healed, err
	}
	return healed, v.removeGenerations(d, current, d.recentPrevious(current, v.cfg.Now()))
}

// setAside gives a stage that only another user can remove the name of a generation older than all: like those,
// it is tried again later, and nothing depends on its absence.
func (d disk) setAside(name string) error {
	for old := time.Unix(0, 0).UTC(); ; old = old.Add(time.Millisecond) {
		if to := old.Format(generationLayout); !d.exists(to) {
			return d.rename(name, to)
		}
	}
}

// write publishes the set in the configured layout, unless now shows that it is there.
func (v *Volume) write(d disk, s *set, now snapshot) (changed bool, err error) {
	differing := v.differing(s, now)
	if len(differing) == 0 && v.layoutFault(now) == nil {
		return false, nil
	}
	if err := v.inTheWay(d); err != nil {
		return false, err
	}
	committed := false
	commit := func() { committed, v.published = true, s }
	if v.cfg.Layout == LayoutSymlink {
		err = v.publishSymlink(d, s, now, commit)
	} else {
		err = v.publishInplace(d, s, differing, commit)
	}
	if err != nil && !committed {
		// Space that a failed publication holds may be what another needs. When this fails as well, the
		// next settle does it; the first error is the one to know.
		_ = d.remove(stageDir)
		_, _ = v.settle(d)
	}
	return true, err
}

// differing lists the files of the set that the volume has not, or not with this content, mode and group.
func (v *Volume) differing(s *set, now snapshot) []content {
	var differing []content
	for _, want := range s.files {
		has := now.files[want.name]
		sameGroup := v.gid == inherit || has.gid == v.gid
		if now.layout != v.cfg.Layout || !has.holds(want.data) || has.mode != want.kept || !sameGroup {
			differing = append(differing, want)
		}
	}
	return differing
}

// inTheWay refuses a volume where a directory, or a mount, has a name that a rename must take, before anything
// is written: it would stop the publication half-way.
func (v *Volume) inTheWay(d disk) error {
	names := []string{dataLink}
	for _, f := range wanted(v.cfg.Types) {
		names = append(names, f.name)
	}
	for _, name := range names {
		if info, err := d.root.Lstat(name); err == nil && info.IsDir() {
			return fileError(opRename, d.path(name), syscall.EISDIR)
		}
		if d.isMounted(name) {
			return fileError(opRename, d.path(name), syscall.EBUSY)
		}
	}
	return nil
}
