// Package dirlock keeps processes that work in the same directory out of one another's way, by flock(2) on the
// directory itself: a lock leaves no file behind and ends with its process.
package dirlock

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// How a directory is locked.
const (
	Shared    = syscall.LOCK_SH
	Exclusive = syscall.LOCK_EX
)

// Wait is how long another process is waited for. What is done under a lock takes milliseconds.
const Wait = 10 * time.Second

// ErrHeld is the error of Lock when another process held the directory all the time.
var ErrHeld = errors.New("another process has worked in this directory for " + Wait.String())

// Lock locks a directory until it is closed. Where the file system knows no locks, it does without. The error is
// ErrHeld, or context.Canceled when done was closed before; a nil done never is.
func Lock(dir *os.File, how int, done <-chan struct{}) error {
	for deadline := time.Now().Add(Wait); ; {
		err := syscall.Flock(int(dir.Fd()), how|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil
		case time.Now().After(deadline):
			return ErrHeld
		}
		select {
		case <-done:
			return context.Canceled
		case <-time.After(10 * time.Millisecond):
		}
	}
}
