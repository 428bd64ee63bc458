package output

import (
	"errors"
	"io/fs"
)

// untoldName is an empty file at the top of a volume. While it is there, something was published that nobody
// is known to have been told of. It is what a killed process leaves to its successor.
const untoldName = "..untold"

// owe notes durably that the application is to be told. It comes before the step that readers see: in the worst
// case somebody is told of nothing new, but never is something new told to nobody.
func (v *Volume) owe(d disk) error {
	if !v.cfg.Journal {
		return nil
	}
	v.number++
	if d.Exists(untoldName) {
		return nil
	}
	f, err := d.WriteFile(untoldName, nil, 0o600)
	if f != nil {
		f.Close()
	}
	if err != nil {
		return err
	}
	return d.SyncDir(".")
}

// Untold tells whether Open found that a process before this one has published something, and did not
// get as far as Told. Without Config.Journal nobody wants to know.
func (v *Volume) Untold() bool { return v.untold }

// Owe notes, as a publication does, that the application is to be told of something. It returns the number for Told.
func (v *Volume) Owe() (number int, err error) {
	err = v.alone(func(d disk) error {
		err := v.owe(d)
		number = v.number
		return err
	})
	return number, err
}

// Told says that the application knows of the publication with this number, 0 being what was there before the
// first. A later one stays to be told.
func (v *Volume) Told(number int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, closeDisk, err := v.disk()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the note is gone with the directory
	}
	if err != nil {
		return err
	}
	defer closeDisk()
	if number != v.number || !d.Exists(untoldName) {
		return nil
	}
	return d.remove(untoldName)
}
