package output

import (
	"errors"
	"io/fs"
)

// pendingName is an empty file at the top of a volume. While it exists, a notification of what was
// published is pending. A killed process leaves it to its successor.
const pendingName = "..untold"

// markPending records durably that the application has to be notified. It comes before the step
// that readers see: in the worst case the application is notified of nothing new, but no
// publication goes without a notification.
func (v *Volume) markPending(d disk) error {
	if !v.cfg.NotePending {
		return nil
	}
	v.number++
	if d.Exists(pendingName) {
		return nil
	}
	f, err := d.WriteFile(pendingName, nil, 0o600)
	if f != nil {
		f.Close()
	}
	if err != nil {
		return err
	}
	return d.SyncDir(".")
}

// Pending tells whether Open found that an earlier process published something and ended before
// MarkNotified. It is always false without Config.NotePending.
func (v *Volume) Pending() bool { return v.pending }

// MarkPending records, as a publication does, that a notification is pending. It returns the
// number for MarkNotified.
func (v *Volume) MarkPending() (number int, err error) {
	err = v.doAlone(func(d disk) error {
		err := v.markPending(d)
		number = v.number
		return err
	})
	return number, err
}

// MarkNotified records that the application was notified of the publication with this number, 0
// being what was there before the first. The notification of a later one stays pending.
func (v *Volume) MarkNotified(number int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.doLocked(func(d disk) error {
		if number != v.number || !d.Exists(pendingName) {
			return nil
		}
		return d.remove(pendingName)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the record is gone with the directory
	}
	return err
}
