package output

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// Volume is a directory that files are published in. Its methods may be called concurrently; across
// processes a lock on the directory keeps one from the other's work.
type Volume struct {
	cfg  Config
	gid  int
	step files.StepFunc

	mu        sync.Mutex
	passwords passwords // zero until the first publication
	journal   *os.File  // what SaveJournal keeps, locked; nil: nothing
	published *set      // what is known to be on the volume as a whole, nil when nothing is

	differences []string             // what was corrected or replaced, and is in no Publication yet
	number      int                  // of what was published last with NotePending, counted from 1
	pending     bool                 // see Pending
	oldDue      time.Time            // see OldDue
	replaced    map[string]time.Time // when this process replaced a generation; it may have a monotonic clock reading
	reported    map[string]bool      // generations that cannot be removed, each of which is reported once
}

// Open makes the directory where it is missing (mode 0750, setgid handed on from its parent; an
// existing one keeps its mode) and brings the volume to rest after a killed run: a publication
// that was committed is completed, one that was not is removed. An error is of type *FileError
// unless cfg is not usable at all.
func Open(cfg Config) (*Volume, error) { return open(cfg, nil) }

func open(cfg Config, step files.StepFunc) (*Volume, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	gid, err := LookupGroup(cfg.Group)
	if err != nil {
		return nil, &FileError{Op: files.OpGroup, Path: cfg.Dir, Err: err}
	}
	v := &Volume{cfg: cfg, gid: gid, step: step, reported: map[string]bool{}, replaced: map[string]time.Time{}}
	err = v.doAlone(func(d disk) error {
		err := v.settle(d)
		v.pending = cfg.NotePending && d.Exists(pendingName)
		return err
	})
	if err != nil {
		return nil, err
	}
	// The caller begins with what is there now.
	v.differences, v.number = nil, 0
	return v, nil
}

// Read reads what is published, as Current does, without changing anything: it
// neither makes the directory nor completes or clears what a killed run left.
func Read(cfg Config) (*Bundle, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return (&Volume{cfg: cfg, gid: files.Inherit}).Current()
}

// Current reads back what is published, from the files of every configured type, and
// compares: that the set is complete and has no more files than it should, that the
// stores open with the passwords beside them (or with those of the configuration),
// have the configured aliases and PKCS#12 profile, hold the same, and that the key
// is the leaf's. The error is ErrEmpty when there is nothing, a *MismatchError when
// something differs, a *FileError when the directory cannot be read.
func (v *Volume) Current() (*Bundle, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.unlocked(v.cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := v.adopt(d.lookUndisturbed()); err != nil {
		return nil, err
	}
	bundle := v.published.bundle
	return &bundle, nil
}

// OtherForm reads a set that Current refuses for its form: another layout, other types, aliases or PKCS#12 profile than
// configured, other passwords than those given, or files missing that the rest makes up for. All that can be read of it
// must be of one set, with a key and trusted certificates; otherwise it returns nil. Publish gives it the configured
// form.
func (v *Volume) OtherForm() *Bundle {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.unlocked(v.cfg.Dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	s := d.lookUndisturbed()
	if s.unsettled {
		return nil
	}
	r := reader{cfg: v.cfg, files: s.files, anyForm: true}
	r.cfg.Types = nil
	for _, f := range formats {
		if _, err := f.read(r); err == nil {
			r.cfg.Types = append(r.cfg.Types, f.Name)
		}
	}
	if len(r.cfg.Types) == 0 {
		return nil
	}
	bundle, err := r.bundle()
	if err != nil {
		return nil
	}
	bundle.Note = s.note()
	return &bundle
}

// Publish makes b the set that readers see. When it is already, in the configured layout, types,
// aliases, modes and so on, nothing is touched. The passwords stay those that are on the volume,
// unless others are configured. What readers see changes at one moment; see the two layouts for
// what a reader may meet who opens several files. An error is an *EncodeError, or a *FileError.
// After an error the volume holds the old set, or, when it is an *IncompleteError with that, the
// new one; the next Publish, Restore or Open brings it to rest.
func (v *Volume) Publish(b Bundle) (p Publication, err error) {
	err = v.doAlone(func(d disk) error {
		if err := v.settle(d); err != nil {
			return err
		}
		now := d.look()
		if v.published == nil {
			// A set that differs from what is asked for, or
			// none, is not a failure here: it is replaced.
			_ = v.adopt(now)
		}
		v.choosePasswords(now)
		s := v.published
		if s == nil || !s.bundle.equal(b) {
			if s, err = v.encode(b); err != nil {
				return err
			}
		}
		p, err = v.write(d, s, now)
		return err
	})
	return p, err
}

// Restore puts back files that another process removed or changed, byte for
// byte as they were published last, or as Current read them. Before either,
// there is nothing to put back. It is cheap when nothing has changed: it
// reads the files and opens no store. The errors are those of Publish.
func (v *Volume) Restore() (p Publication, err error) {
	err = v.doAlone(func(d disk) error {
		if err := v.settle(d); err != nil || v.published == nil {
			return err
		}
		p, err = v.write(d, v.published, d.look())
		return err
	})
	return p, err
}

// publication reports what has changed since the last report.
func (v *Volume) publication() Publication {
	p := Publication{Changed: len(v.differences) > 0, Files: v.Files(), Differences: v.differences, Number: v.number}
	v.differences = nil
	return p
}

// InTheWay reports a directory or a mount that has the name of a file to
// be published, without changing anything. The error is of type
// *FileError. For a directory it is syscall.EISDIR: Open moves that aside.
func InTheWay(cfg Config) error {
	v := &Volume{cfg: cfg.withDefaults()}
	d, err := v.unlocked(cfg.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return v.inTheWay(d)
}

// doAlone is doLocked for a volume that may be missing.
func (v *Volume) doAlone(work func(d disk) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.makeDirectory(v.cfg.Dir); err != nil {
		return err
	}
	return v.doLocked(work)
}

// doLocked runs work while no other process changes the volume.
func (v *Volume) doLocked(work func(d disk) error) error {
	d, err := v.unlocked(v.cfg.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	unlock, err := lock(d, v.cfg.Done)
	if err != nil {
		return err
	}
	defer unlock()
	return work(d)
}

// unlocked opens the directory of the volume, each time
// again, as it may have been replaced, or one above it.
func (v *Volume) unlocked(dir string) (disk, error) {
	opened, err := files.OpenDisk(dir, v.gid, v.step)
	return disk{opened, v.cfg.Log}, err
}

func (v *Volume) path(name string) string { return filepath.Join(v.cfg.Dir, name) }

// Files lists the paths of the whole set, in the order in which readers should see them.
func (v *Volume) Files() []string {
	var paths []string
	for _, f := range filesOf(v.cfg.Types) {
		paths = append(paths, v.path(f.Name))
	}
	return paths
}
