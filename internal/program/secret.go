package program

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

const (
	// secretMost is the size of a secret's file, in bytes.
	secretMost = 64 << 10
	// secretPatience is for how long a pipe is read, which is what a shell makes of <(command).
	secretPatience = 30 * time.Second
)

// ReadSecret reads a secret from a file or a pipe; one trailing newline is dropped. It waits for nobody to
// open a pipe, and not for long for somebody who has.
func ReadSecret(path string) (string, error) {
	return readSecret(path, secretPatience)
}

func readSecret(path string, patience time.Duration) (string, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(patience)) // an error means that reading never waits
	content, err := io.ReadAll(io.LimitReader(file, secretMost+1))
	if err != nil {
		return "", err
	}
	if len(content) > secretMost {
		return "", fmt.Errorf("has more than %d bytes", secretMost)
	}
	return TrimSecret(content), nil
}

// TrimSecret is the secret in a file's content: without one newline at its end, and without the byte order mark that
// Windows editors and shells write.
func TrimSecret(content []byte) string {
	text, _ := files.Text(content)
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
}
