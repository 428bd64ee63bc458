package doctor

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/output"
)

// volume checks where files are published.
func (d *doctor) volume() {
	if variable := d.faulty("OUTPUT_PATH", "OUTPUT_LAYOUT", "OUTPUT_FILE_MODE"); variable != "" {
		d.skipRest(volumeChecks, variable+" has a fault")
		return
	}
	dir := d.Config.Output.Dir
	base, err := files.ExistingDir(dir)
	if err != nil {
		d.fail(enroll.StageFile, checkVolume, err.Error(),
			"give another path in OUTPUT_PATH, or remove what is in the way")
		d.skipRest(volumeChecks, "because the volume check failed")
		return
	}
	info, err := os.Stat(base)
	if err != nil {
		d.fail(enroll.StageFile, checkVolume, fmt.Sprintf("%q cannot be looked at: %v", base, files.Reason(err)),
			"check the modes of its directories; "+whoAmI())
		d.skipRest(volumeChecks, "because the volume check failed")
		return
	}
	if base == dir {
		d.ok(checkVolume, "%s", statText(dir, info))
	} else {
		d.ok(checkVolume, "%q is missing and will be made; %s", dir, statText(base, info))
	}
	d.fileSystem(base)
	report, err := inspect.Dir(dir)
	t := &trial{doctor: d, base: base, made: base == dir, published: report}
	t.run()
	d.checkPublishedSet(report, err)
}

// statText words a file's mode and owner.
func statText(path string, info fs.FileInfo) string {
	text := fmt.Sprintf("%q has mode %04o (%s)", path, uint32(info.Mode().Perm()), info.Mode().Perm().String()[1:])
	if info.Mode()&fs.ModeSetgid != 0 {
		text += " with setgid"
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		text += fmt.Sprintf(", uid %d, gid %d", stat.Uid, stat.Gid)
	}
	return text
}

// whoAmI says as whom the process runs.
func whoAmI() string {
	text := fmt.Sprintf("certfetcher runs as uid %d, gid %d", os.Geteuid(), os.Getegid())
	if groups, err := os.Getgroups(); err == nil && len(groups) > 0 {
		text += ", groups " + strings.Trim(fmt.Sprint(groups), "[]")
	}
	return text
}

// kind is what a file system means for private keys.
type kind int

const (
	kindUnknown   kind = iota
	kindMemory         // gone with the pod
	kindDisk           // stays
	kindNetwork        // stays, and travels
	kindContainer      // the container's own layer, which no other container sees
)

// littleSpace is several times what a set of all types takes, together with the one before it.
const littleSpace = 1 << 20

func (d *doctor) fileSystem(dir string) {
	name, kind, free, inodes, err := statFileSystem(dir)
	if err != nil {
		d.skip(checkFileSystem, "the system does not say: "+files.Reason(err).Error())
		d.skip(checkSpace, "the system does not say")
		return
	}
	const memory = "keep private keys in memory: emptyDir with medium: Memory"
	switch kind {
	case kindMemory:
		d.ok(checkFileSystem, "%s: keys are in memory, and gone with the pod", name)
	case kindContainer:
		d.warn(checkFileSystem, name+": this is the container's own layer, which no other container sees",
			"mount a volume at OUTPUT_PATH, an emptyDir with medium: Memory")
	case kindNetwork:
		d.warn(checkFileSystem, name+": private keys travel over the network, and stay when the pod is gone", memory)
	case kindDisk:
		d.warn(checkFileSystem, name+": private keys are written to a disk",
			memory+"; on a disk they stay when the pod is gone, which may be what you want")
	default:
		d.ok(checkFileSystem, "%s", name)
	}
	text := fmt.Sprintf("%s free", bytesText(free))
	switch {
	case free < littleSpace:
		d.warn(checkSpace, text, "enlarge the volume or its sizeLimit, or make room: 1 MiB is plenty")
	case inodes != nil && *inodes < 64:
		d.warn(checkSpace, fmt.Sprintf("%s, but for %d files only", text, *inodes),
			"remove files, or enlarge the volume")
	default:
		d.ok(checkSpace, "%s", text)
	}
}

func bytesText(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// checkPublishedSet judges what is there. Nothing that is
// wrong with it is a failure: certfetcher replaces it.
func (d *doctor) checkPublishedSet(report *inspect.Report, err error) {
	switch {
	case errors.Is(err, inspect.ErrNothing), errors.Is(err, fs.ErrNotExist):
		d.ok(checkPublished, "nothing yet")
		return
	case err != nil:
		d.warn(checkPublished, fmt.Sprintf("%q cannot be read: %v", d.Config.Output.Dir, files.Reason(err)),
			"check its mode; "+whoAmI())
		return
	}
	advice := "certfetcher replaces it at its next start"
	if d.Config.Sidecar.Enabled {
		advice += ", a running sidecar soon"
	}
	now := d.Now()
	found := "no certificate"
	if c := report.Certificate; c != nil {
		found = fmt.Sprintf("certificate for %q", c.Subject)
		if now.Before(c.NotAfter) {
			found += ", valid until " + until(c.NotAfter, now)
		} else {
			found += ", expired at " + pki.Stamp(c.NotAfter)
		}
	}
	if variable := d.faulty("OUTPUT_TYPE", "KEYSTORE_ALIAS", "TRUSTSTORE_ALIAS_PREFIX",
		"P12_PROFILE", "OUTPUT_KEYSTORE_PASSWORD", "OUTPUT_TRUSTSTORE_PASSWORD"); variable != "" {
		d.warn(checkPublished, found+"; not compared with the configuration, as "+variable+" has a fault",
			"correct that variable")
		return
	}
	if err := enroll.Check(d.Config.Settings, now); err != nil {
		if mismatch, ok := errors.AsType[*output.MismatchError](err); ok {
			err = mismatch
		}
		d.warn(checkPublished, found+", but "+err.Error(), advice)
		return
	}
	if changed := enroll.Changed(d.Config.Settings); changed != "" && len(d.Faults) == 0 {
		d.warn(checkPublished, found+", but "+changed,
			"certfetcher fetches another at its next start; with MODE=sidecar the application "+
				"goes on with this one meanwhile")
		return
	}
	d.ok(checkPublished, "%s", found)
}

// trialBytes is about what a set takes.
const trialBytes = 64 << 10

// trial does on the volume what a publication does, in a hidden directory of its own that it
// removes again. Two dots keep the name out of the way of readers' globs.
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
	dir, err := t.disk.Open(t.name)
	if err != nil {
		return err
	}
	defer dir.Close()
	data := make([]byte, trialBytes)
	rand.Read(data) // zeros would take no room where files are compressed
	for name, mode := range map[string]fs.FileMode{"secret": o.FileMode, "public": 0o644} {
		f, err := dir.WriteFile(name+"_tmp", data, mode)
		if err == nil {
			err = dir.SyncFiles([]*os.File{f})
		}
		if f != nil {
			f.Close()
		}
		if err == nil {
			err = dir.Rename(name+"_tmp", name)
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
