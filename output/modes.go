package output

import (
	"io/fs"

	"github.com/certfetcher/certfetcher/internal/files"
)

// MendModes gives published files the modes and the group that they should have, as far as Current or Publish
// knows them, without touching what is in them or when that was written. It returns the paths of those that it
// changed. The error is of type *FileError; a volume on which nothing differs needs no right to write.
func (v *Volume) MendModes() (mended []string, err error) {
	v.mu.Lock()
	published := v.published
	v.mu.Unlock()
	if published == nil {
		return nil, nil
	}
	err = v.alone(func(d disk) error {
		now := d.look()
		for _, want := range published.files {
			has, ok := now.files[want.name]
			if !ok || has.err != nil || has.shared {
				continue // gone or replaced meanwhile: that is more than modes; or perhaps somebody's file elsewhere
			}
			changed, err := d.mendMode(want.name, has.mode, want.mode, has.gid)
			if changed {
				mended = append(mended, d.Path(want.name))
			}
			if err != nil {
				return err
			}
		}
		return d.mendGeneration(DirectoryMode(v.cfg.FileMode))
	})
	return mended, err
}

// mendGeneration does the same for the directory through which the symlink layout's files are reached.
func (d disk) mendGeneration(mode fs.FileMode) error {
	generation := d.generation()
	if generation == "" {
		return nil
	}
	info, err := d.Root.Lstat(generation)
	if err != nil {
		return files.NewError(files.OpMode, d.Path(generation), err)
	}
	setgid := info.Mode() & fs.ModeSetgid
	_, err = d.mendMode(generation, info.Mode().Perm()|setgid, mode|setgid, files.GroupOf(info))
	return err
}

// mendMode gives a file or directory that has the one mode the other, and before that its group.
func (d disk) mendMode(name string, has, want fs.FileMode, gid int) (changed bool, err error) {
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
