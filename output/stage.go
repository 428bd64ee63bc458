package output

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/files"
)

// stage makes ..stage with the files in it, all durable. It notes the modes that the file system gave.
func (v *Volume) stage(d disk, files []content, mode fs.FileMode) error {
	return v.makingRoom(d, func() error { return v.tryStage(d, files, mode) })
}

func (v *Volume) tryStage(d disk, files []content, mode fs.FileMode) error {
	if err := d.MakeDir(stageDir, mode); err != nil {
		return err
	}
	written := make([]*os.File, 0, len(files))
	defer func() {
		for _, f := range written {
			f.Close()
		}
	}()
	for i := range files {
		f, err := d.WriteFile(stageDir+"/"+files[i].name, files[i].data, files[i].mode)
		if f != nil {
			written = append(written, f)
		}
		if err != nil {
			return err
		}
		if files[i].kept, err = v.keptMode(f, files[i]); err != nil {
			return err
		}
	}
	return d.SyncFiles(stageDir, written)
}

// keptMode is the mode that a written file has. Some file systems know one mode only.
func (v *Volume) keptMode(f *os.File, c content) (fs.FileMode, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, files.NewError(files.OpMode, v.path(c.name), err)
	}
	kept := info.Mode().Perm()
	if kept&^c.mode != 0 {
		v.cfg.Log.Warn("the file system does not keep modes, the file is more open than asked for",
			"path", v.path(c.name), "mode", kept.String(), "want", c.mode.String())
	}
	return kept, nil
}

// isNoRoom tells the errors of a file system that has no more bytes or inodes to give, to anybody or to this user.
func isNoRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// makingRoom does work that begins with ..stage. Where it fails for want of room, old generations give theirs, the
// oldest first: a reader that is slow is worth less than a new certificate.
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
		v.cfg.Log.Warn("the volume has little room: removed an old generation of files early, a reader may still be in it",
			"path", d.Path(names[0]))
	}
}
