package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// maxPIDFileBytes is more than any program writes; PostgreSQL's has eight lines.
const maxPIDFileBytes = 4096

// readPIDFile returns the number in the file's first line, and when the file was written.
func readPIDFile(path string) (pid int, written time.Time, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("reading the PID file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("reading the PID file: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxPIDFileBytes))
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("reading the PID file: %w", err)
	}
	pid, err = parsePID(content)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("reading the PID file %q: %w", path, err)
	}
	return pid, info.ModTime(), nil
}

func parsePID(content []byte) (int, error) {
	line, _, _ := bytes.Cut(content, []byte{'\n'})
	text := string(bytes.TrimSpace(line))
	// 0 and negative numbers would be process groups, this one's among them.
	pid, err := strconv.ParseInt(text, 10, 32)
	if err != nil || pid < 1 {
		return 0, fmt.Errorf("has %q in its first line, want a process ID", text[:min(len(text), 40)])
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
