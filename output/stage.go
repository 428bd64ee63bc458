package output

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/files"
)

// stage makes ..stage with the files in it, all durable. It
// notes the modes that the file system gave.
func (v *Volume) stage(d disk, files []*content, mode fs.FileMode) error {
	return v.makingRoom(d, func() error { return v.tryStage(d, files, mode) })
}

func (v *Volume) tryStage(d disk, files []*content, mode fs.FileMode) error {
	if err := d.MakeDir(stageDir, mode); err != nil {
		return err
	}
	stage, err := d.Open(stageDir)
	if err != nil {
		return err
	}
	defer stage.Close()
	written := make([]*os.File, 0, len(files))
	defer func() {
		for _, f := range written {
			f.Close()
		}
	}()
	for _, c := range files {
		f, err := stage.WriteFile(c.name, c.data, c.mode)
		if f != nil {
			written = append(written, f)
		}
		if err != nil {
			return err
		}
		if c.kept, err = v.keptMode(f, c); err != nil {
			return err
		}
	}
	return stage.SyncFiles(written)
}

// keptMode is the mode that a written file has. Some file systems have one mode only.
func (v *Volume) keptMode(f *os.File, c *content) (fs.FileMode, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, files.NewError(files.OpMode, v.path(c.name), err)
	}
	kept := info.Mode().Perm()
	if kept&^c.mode != 0 {
		v.cfg.Log.Warn("the file system does not keep modes, so the file is more open than configured",
			"path", v.path(c.name), "mode", kept.String(), "want", c.mode.String())
	}
	return kept, nil
}

// isNoRoom tells the errors of a file system that has no
// more bytes or inodes, or none for this user.
func isNoRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// makingRoom does work that begins with ..stage. Where it fails because
// the volume is full, it removes old generations, the oldest first, and
// tries again: a new certificate is worth more than a slow reader.
func (v *Volume) makingRoom(d disk, work func() error) error {
	for {
		err := work()
		if !isNoRoom(err) {
			return err
		}
		names, listing := d.generations()
		current := d.generation()
		if listing != nil || len(names) == 0 || names[0] >= current {
			return err
		}
		if d.remove(stageDir) != nil || d.remove(names[0]) != nil {
			return err
		}
		v.cfg.Log.Warn(
			"the volume is nearly full: removed an old generation of files early, although a reader may still use it",
			"path", d.Path(names[0]))
	}
}
