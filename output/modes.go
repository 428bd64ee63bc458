package output

import (
	"io/fs"

	"github.com/certfetcher/certfetcher/internal/files"
)

// CorrectModes gives published files the modes and the group that they should have, as far as
// Current or Publish knows them. Content and modification time stay as they are. It returns the
// paths of those that it changed. The error is of type *FileError; a volume on which nothing
// differs needs no right to write.
func (v *Volume) CorrectModes() (corrected []string, err error) {
	v.mu.Lock()
	published := v.published
	v.mu.Unlock()
	if published == nil {
		return nil, nil
	}
	err = v.doAlone(func(d disk) error {
		now := d.look()
		for _, want := range published.files {
			has, ok := now.files[want.name]
			if !ok || has.err != nil || has.shared {
				// gone or replaced meanwhile, which modes do not repair; or perhaps another
				// process's file elsewhere
				continue
			}
			changed, err := d.correctMode(want.name, has.mode, want.mode, has.gid)
			if changed {
				corrected = append(corrected, d.Path(want.name))
			}
			if err != nil {
				return err
			}
		}
		return d.correctGeneration(DirectoryMode(v.cfg.FileMode))
	})
	return corrected, err
}

// correctGeneration does this for the directory through
// which the symlink layout's files are reached.
func (d disk) correctGeneration(mode fs.FileMode) error {
	generation := d.generation()
	if generation == "" {
		return nil
	}
	info, err := d.Root.Lstat(generation)
	if err != nil {
		return files.NewError(files.OpMode, d.Path(generation), err)
	}
	setgid := info.Mode() & fs.ModeSetgid
	_, err = d.correctMode(generation, info.Mode().Perm()|setgid, mode|setgid, files.GroupOf(info))
	return err
}

// correctMode gives a file or directory its group, and after that its mode, where they differ.
func (d disk) correctMode(name string, has, want fs.FileMode, gid int) (changed bool, err error) {
	if d.GID != files.Inherit && gid != d.GID {
		if err := d.Do(files.OpGroup, name, func() error { return d.Root.Chown(name, -1, d.GID) }); err != nil {
			return false, err
		}
		changed = true
	}
	if has == want {
		return changed, nil
	}
	err = d.Do(files.OpMode, name, func() error { return d.Root.Chmod(name, want) })
	return changed || err == nil, err
}
