package doctor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/output"
)

// trialBytes is about what a set takes.
const trialBytes = 64 << 10

// trial does on the volume what a publication does, in a hidden directory of its own that it removes again.
// Two dots keep the name out of the way of readers' globs.
type trial struct {
	*doctor
	base string // where the directory is made
	made bool   // base is OUTPUT_PATH itself, and not a directory above it

	published *inspect.Report // nil: nothing is

	dir, secret, public string // what was made
	gid                 int    // the group asked for, or -1
}

// trialError is a step that failed.
type trialError struct {
	op, path string
	err      error
}

func (e *trialError) Error() string {
	return fmt.Sprintf("%s %q: %v", e.op, e.path, files.Reason(e.err))
}
func (e *trialError) Unwrap() error { return e.err }

func (t *trial) run() {
	err := t.write()
	if err == nil {
		t.kept()
		t.layout()
		t.reader()
	}
	if t.dir != "" {
		if removing := os.RemoveAll(t.dir); err == nil && removing != nil {
			err = &trialError{"removing", t.dir, removing}
		}
	}
	if err != nil {
		t.fail(enroll.StageFile, checkWriting, err.Error(), t.advice(err))
		t.skipRest(volumeChecks[:len(volumeChecks)-1], "because the writing check failed") // what is published can be read all the same
	}
}

// write makes the directory with a file of each sort: closed, then their group, then their mode.
func (t *trial) write() error {
	o := t.Config.Output
	var err error
	if t.gid, err = output.LookupGroup(o.Group); err != nil {
		return &trialError{"finding the group", o.Group, errNoGroup}
	}
	if t.dir, err = os.MkdirTemp(t.base, "..doctor-"); err != nil {
		t.dir = ""
		return &trialError{"creating a directory in", t.base, err}
	}
	if err := t.give(t.dir, output.DirectoryMode(o.FileMode)); err != nil {
		return err
	}
	data := make([]byte, trialBytes)
	rand.Read(data) // zeros would take no room where files are compressed
	t.secret, t.public = filepath.Join(t.dir, "secret"), filepath.Join(t.dir, "public")
	for path, mode := range map[string]fs.FileMode{t.secret: o.FileMode, t.public: 0o644} {
		if err := t.file(path, data, mode); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) file(path string, data []byte, mode fs.FileMode) error {
	temporary := path + "_tmp"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &trialError{"creating", temporary, err}
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return &trialError{"writing", temporary, err}
	}
	if err := t.give(temporary, mode); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return &trialError{"renaming", temporary, err}
	}
	return nil
}

// give sets group and mode; a directory keeps the setgid bit that it may have from the one above.
func (t *trial) give(path string, mode fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return &trialError{"looking at", path, err}
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); t.gid >= 0 && ok && int(stat.Gid) != t.gid {
		if err := os.Lchown(path, -1, t.gid); err != nil {
			return &trialError{"setting the group of", path, err}
		}
	}
	if err := os.Chmod(path, mode|info.Mode()&fs.ModeSetgid); err != nil {
		return &trialError{"setting the mode of", path, err}
	}
	return nil
}

var errNoGroup = errors.New("no group of that name in /etc/group")

func (t *trial) advice(err error) string {
	var step *trialError
	switch {
	case errors.Is(err, errNoGroup):
		return "give the group's number in OUTPUT_GROUP"
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only: mount the volume without readOnly"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "the volume is full: enlarge it or make room"
	case errors.Is(err, fs.ErrPermission) && errors.As(err, &step) && step.op == "setting the group of":
		return "only a member of the group in OUTPUT_GROUP may give files to it: add it by fsGroup or supplementalGroups; " + whoAmI()
	case errors.Is(err, fs.ErrPermission):
		return "give the right to write to certfetcher's user or group, in Kubernetes by fsGroup; " + whoAmI()
	}
	return "mount a volume that can be written to at OUTPUT_PATH"
}

// kept compares what the file system made of the modes.
func (t *trial) kept() {
	info, err := os.Stat(t.secret)
	if err != nil {
		t.fail(enroll.StageFile, checkWriting, "a file just written is gone: "+files.Reason(err).Error(), "see who else cleans up on the volume")
		return
	}
	want := t.Config.Output.FileMode
	if got := info.Mode().Perm(); got&^want != 0 {
		t.warn(checkWriting, fmt.Sprintf("the file system does not keep modes: a file has %04o, want %04o", uint32(got), uint32(want)), "use a volume that does, or mount options that give this mode")
		return
	}
	text := fmt.Sprintf("wrote, synced, renamed and removed files; those with secrets get mode %04o", uint32(want))
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		text += fmt.Sprintf(", uid %d, gid %d", stat.Uid, stat.Gid)
	}
	t.ok(checkWriting, "%s", text)
}

// layout checks what the layout is made of.
func (t *trial) layout() {
	if t.made {
		err := output.InTheWay(output.Config{Dir: t.base, Types: t.Config.Output.Types})
		if errors.Is(err, syscall.EISDIR) {
			t.warn(checkLayout, err.Error(), "find out who made it: certfetcher moves it aside, to a name that begins with ..foreign-")
			return
		}
		if err != nil {
			t.fail(enroll.StageFile, checkLayout, err.Error(), "remove what is in the way, or give another path in OUTPUT_PATH")
			return
		}
	}
	if t.Config.Output.Layout == output.LayoutInplace {
		t.ok(checkLayout, "inplace, by renames, which work")
		return
	}
	temporary, link := filepath.Join(t.dir, "link_tmp"), filepath.Join(t.dir, "link")
	err := os.Symlink("secret", temporary)
	if err == nil {
		err = os.Rename(temporary, link)
	}
	if err == nil {
		_, err = os.Stat(link)
	}
	if err != nil {
		t.fail(enroll.StageFile, checkLayout, fmt.Sprintf("symlink, but links do not work on this volume: %v", files.Reason(err)), "set OUTPUT_LAYOUT=inplace, or use another volume")
		return
	}
	t.ok(checkLayout, "symlink, by links and renames, which work")
}
