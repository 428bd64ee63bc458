package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// maxPIDFileBytes is more than any program writes; PostgreSQL's has eight lines.
const maxPIDFileBytes = 4096

// readPIDFile returns the number in the file's first line, and when the file was written.
func readPIDFile(path string) (pid int, written time.Time, err error) {
	content, info, err := files.Read(path, maxPIDFileBytes)
	if err != nil {
		err = fmt.Errorf("reading the PID file: %w", err)
		if errors.Is(err, fs.ErrNotExist) {
			err = &absentError{err}
		}
		return 0, time.Time{}, err
	}
	pid, err = parsePID(content)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("reading the PID file %q: %w", path, err)
	}
	return pid, info.ModTime(), nil
}

func parsePID(content []byte) (int, error) {
	line, _, _ := bytes.Cut(content, []byte{'\n'})
	// 0 and negative numbers would be process groups, this one's among them.
	pid, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 32)
	if err != nil || pid < 1 {
		// What it has instead may be a secret, if the path is that of another file.
		return 0, errors.New("has no process ID in its first line")
	}
	return int(pid), nil
}

// explainKill adds what to do about a signal that could not be sent.
func explainKill(pid int, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("signalling process %d: %w: run certfetcher with the application's UID (runAsUser), or give it the capability KILL", pid, err)
	}
	return fmt.Errorf("signalling process %d: %w", pid, err)
}
