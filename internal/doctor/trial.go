package doctor

import (
	"cmp"
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

	disk                files.Disk
	name                string // of the directory, in base
	dir, secret, public string // what was made
}

func (t *trial) run() {
	err := t.write()
	if err == nil {
		t.checkKept()
		t.layout()
		t.reader()
	}
	if t.dir != "" {
		if removing := os.RemoveAll(t.dir); err == nil && removing != nil {
			err = files.NewError(files.OpRemove, t.dir, removing)
		}
		t.disk.Close()
	}
	if err != nil {
		found, advice := err.Error(), ""
		if e, ok := errors.AsType[*files.Error](err); ok {
			found, advice = fmt.Sprintf("%s %q: %v", e.Op, e.Path, e.Err), e.Hint
		}
		t.fail(enroll.StageFile, checkWriting, found,
			cmp.Or(advice, "check OUTPUT_GROUP and the volume mounted at OUTPUT_PATH"))
		// what is published can be read all the same
		t.skipRest(volumeChecks[:len(volumeChecks)-1], "because the writing check failed")
	}
}

// write makes the directory with a file of each sort, as a publication does.
func (t *trial) write() error {
	o := t.Config.Output
	gid, err := output.LookupGroup(o.Group)
	if err != nil {
		return err
	}
	if t.disk, err = files.OpenDisk(t.base, gid, nil); err != nil {
		return err
	}
	t.name = "..doctor-" + rand.Text()
	t.dir = t.disk.Path(t.name)
	t.secret, t.public = filepath.Join(t.dir, "secret"), filepath.Join(t.dir, "public")
	if err := t.disk.MakeDir(t.name, output.DirectoryMode(o.FileMode)); err != nil {
		return err
	}
	data := make([]byte, trialBytes)
	rand.Read(data) // zeros would take no room where files are compressed
	for name, mode := range map[string]fs.FileMode{"secret": o.FileMode, "public": 0o644} {
		f, err := t.disk.WriteFile(t.name+"/"+name+"_tmp", data, mode)
		if err == nil {
			err = t.disk.SyncFiles(t.name, []*os.File{f})
		}
		if f != nil {
			f.Close()
		}
		if err == nil {
			err = t.disk.Rename(t.name+"/"+name+"_tmp", t.name+"/"+name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkKept compares what the file system made of the modes.
func (t *trial) checkKept() {
	info, err := os.Stat(t.secret)
	if err != nil {
		t.fail(enroll.StageFile, checkWriting, "a file just written is gone: "+files.Reason(err).Error(),
			"see who else cleans up on the volume")
		return
	}
	want := t.Config.Output.FileMode
	if got := info.Mode().Perm(); got&^want != 0 {
		t.warn(checkWriting, fmt.Sprintf("the file system does not keep modes: a file has %04o, want %04o",
			uint32(got), uint32(want)), "use a volume that does, or mount options that give this mode")
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
			t.warn(checkLayout, err.Error(),
				"find out who made it: certfetcher moves it aside, to a name that begins with ..foreign-")
			return
		}
		if err != nil {
			t.fail(enroll.StageFile, checkLayout, err.Error(),
				"remove what is in the way, or give another path in OUTPUT_PATH")
			return
		}
	}
	if t.Config.Output.Layout == output.LayoutInplace {
		t.ok(checkLayout, "inplace, by renames, which work")
		return
	}
	err := t.disk.ReplaceLink("secret", t.name+"/link", t.name+"/link_tmp")
	if err == nil {
		_, err = os.Stat(filepath.Join(t.dir, "link"))
	}
	if err != nil {
		t.fail(enroll.StageFile, checkLayout, fmt.Sprintf("symlink, but links do not work on this volume: %v",
			files.Reason(err)), "set OUTPUT_LAYOUT=inplace, or use another volume")
		return
	}
	t.ok(checkLayout, "symlink, by links and renames, which work")
}
