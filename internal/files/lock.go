package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// LockWait is how long another process is waited for.
	// What is done under a lock takes milliseconds.
	LockWait = 10 * time.Second
	// waitForMode is how long a file that may not be opened is waited for: the process that has
	// just made it sets its mode next.
	waitForMode = time.Second
	// waitForOld is how long flock(2) on the directory is waited for. Releases before this one
	// know no other lock, but anybody who may read the directory can hold it without end.
	waitForOld = time.Second
	poll       = 10 * time.Millisecond
)

// ErrLocked is the error of Lock when another process held the lock all the time.
var ErrLocked = errors.New("another process has worked in this directory for " + LockWait.String())

// ForeignLockError says why what is there under the lock's name can be no lock.
type ForeignLockError struct {
	Name   string
	Reason string
}

func (e *ForeignLockError) Error() string { return e.Name + " " + e.Reason }

// errNoFiles: files cannot be made in this directory, such as one of /proc.
var errNoFiles = errors.New("no file can be made in this directory")

// errRemoved: the directory is gone.
var errRemoved = fmt.Errorf("the directory was removed: %w", fs.ErrNotExist)

// errReplaced: the file was replaced before it was locked.
var errReplaced = errors.New("the lock was replaced")

// obstructed: the last wait for flock(2) was in vain, so the next does not wait.
var obstructed atomic.Bool

// Lock keeps other processes that change dir waiting until unlock. It locks the file name in dir,
// which only those may open who may write to dir. Lock makes the file where it is missing, and
// leaves it there. It does without where the file system knows no locks, and where this process
// may not write to the directory, as it can change nothing then. The error is ErrLocked,
// context.Canceled when done was closed before (a nil done never is), a *ForeignLockError, or one
// of the file system.
func Lock(dir *os.File, name string, done <-chan struct{}) (unlock func(), err error) {
	return lockDir(dir, name, done, false)
}

// LockAndRemove is Lock for a directory in which nothing is to stay: unlock removes the file.
func LockAndRemove(dir *os.File, name string, done <-chan struct{}) (unlock func(), err error) {
	return lockDir(dir, name, done, true)
}

func lockDir(dir *os.File, name string, done <-chan struct{}, remove bool) (unlock func(), err error) {
	began := time.Now()
	for {
		var f *os.File
		if f, err = openLock(dir, name); err == nil {
			if err = takeLock(dir, name, f); err != nil {
				f.Close()
			}
		}
		waited := time.Since(began)
		switch {
		case err == nil:
			unlockOld := lockOld(dir, done)
			return func() {
				if remove {
					// who waits for it sees that it is gone, and makes another
					_ = unix.Unlinkat(int(dir.Fd()), name, 0)
				}
				unlockOld()
				f.Close()
			}, nil
		case needsNoLock(err, dir):
			return lockOld(dir, done), nil
		case errors.Is(err, fs.ErrPermission) && waited > waitForMode:
			return nil, &ForeignLockError{name, "may not be opened: it belongs to another user"}
		case !isTemporary(err) || errors.Is(err, errRemoved):
			return nil, err
		case waited > LockWait:
			return nil, ErrLocked
		}
		select {
		case <-done:
			return nil, context.Canceled
		case <-time.After(poll):
		}
	}
}

// isTemporary reports whether an error may be gone the next moment.
func isTemporary(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, errReplaced) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.EINTR)
}

// needsNoLock tells whether to go on without a lock: nothing
// can be changed, or no file be made for it.
func needsNoLock(err error, dir *os.File) bool {
	switch {
	case errors.Is(err, errNoFiles), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC),
		errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return true
	case errors.Is(err, fs.ErrPermission):
		return unix.Faccessat(int(dir.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS) != nil
	}
	return false
}

// openLock opens the lock's file, or makes it.
func openLock(dir *os.File, name string) (*os.File, error) {
	var before unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &before, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return createLock(dir, name)
	}
	if err == nil {
		err = checkLock(name, &before) // opening a device could have effects
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ELOOP {
		return nil, errReplaced
	}
	if err != nil {
		return nil, err
	}
	return ownLock(dir, name, fd)
}

func checkLock(name string, stat *unix.Stat_t) error {
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return &ForeignLockError{name, "is not a regular file"}
	case stat.Nlink > 1:
		return &ForeignLockError{name, "is a hard link to a file that has another name as well"}
	}
	return nil
}

func createLock(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0o600)
	if err == unix.ENOENT {
		var stat unix.Stat_t
		if statErr := unix.Fstat(int(dir.Fd()), &stat); statErr == nil && stat.Nlink > 0 {
			return nil, errNoFiles
		}
		return nil, errRemoved
	}
	if err != nil {
		return nil, err
	}
	return ownLock(dir, name, fd)
}

func ownLock(dir *os.File, name string, fd int) (*os.File, error) {
	f := os.NewFile(uintptr(fd), name)
	if err := setLockMode(dir, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// setLockMode gives the file of this process the owner and the group of the directory, as far as
// it may, and the mode that lets those open it who may write to the directory, and no one else: a
// right to read would do to lock others out.
func setLockMode(dir, f *os.File) error {
	var of, has unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &of); err != nil {
		return err
	}
	if err := unix.Fstat(int(f.Fd()), &has); err != nil {
		return err
	}
	if err := checkLock(f.Name(), &has); err != nil || int(has.Uid) != os.Geteuid() {
		return err // a foreign one has the mode that its owner gave it
	}
	group := has.Gid == of.Gid || unix.Fchown(int(f.Fd()), -1, int(of.Gid)) == nil
	mode := lockModeFor(uint32(of.Mode), group)
	if uint32(has.Mode)&0o7777 != mode {
		// Where modes cannot be set they mean nothing.
		err := unix.Fchmod(int(f.Fd()), mode)
		if err != nil && err != unix.EPERM && err != unix.ENOTSUP && err != unix.EINVAL {
			return err
		}
	}
	if of.Uid != has.Uid {
		_ = unix.Fchown(int(f.Fd()), int(of.Uid), -1) // root may; else the group and others have their right already
	}
	return nil
}

// lockModeFor is the lock's mode by that of its directory;
// group tells whether the two have the same group.
func lockModeFor(dir uint32, group bool) uint32 {
	mode := uint32(0o600)
	if dir&0o020 != 0 && group || dir&0o002 != 0 && !group { // members of another group are others to the directory
		mode |= 0o060
	}
	if dir&0o002 != 0 {
		mode |= 0o006
	}
	return mode
}

// takeLock locks the file, which must still be the one of that name then.
func takeLock(dir *os.File, name string, f *os.File) error {
	switch err := setLock(f); {
	case err == unix.EACCES, err == unix.EAGAIN:
		return syscall.EAGAIN
	case err == unix.EINTR:
		return err
	case err != nil: // the file system knows no locks
		return nil
	}
	var held, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &held); err != nil {
		return err
	}
	err := unix.Fstatat(int(dir.Fd()), name, &there, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT || err == nil && (held.Ino != there.Ino || held.Dev != there.Dev) {
		return errReplaced
	}
	return err
}

// lockOld adds the lock of earlier releases, if that is to be had soon.
func lockOld(dir *os.File, done <-chan struct{}) (unlock func()) {
	flocked := false
	for began := time.Now(); ; {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if flocked = err == nil; flocked || !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			obstructed.Store(false)
			break
		}
		if obstructed.Load() || time.Since(began) > waitForOld {
			obstructed.Store(true)
			break
		}
		select {
		case <-done: // the caller goes on, and meets it at its next step
			obstructed.Store(true)
		case <-time.After(poll):
		}
	}
	return func() {
		if flocked {
			_ = syscall.Flock(int(dir.Fd()), syscall.LOCK_UN)
		}
	}
}
