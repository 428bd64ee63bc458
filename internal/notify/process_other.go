//go:build !linux

package notify

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
)

func supportsSignals() error {
	return fmt.Errorf("signalling the application needs Linux, not %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

type process struct{ pid int }

func (s *signaller) find() ([]process, error) { return nil, supportsSignals() }

func (s *signaller) send(process) error { return supportsSignals() }

func startCommand(cmd *exec.Cmd) (ended func(), err error) { return func() {}, cmd.Start() }

// ReapOrphans does nothing: containers have Linux.
func ReapOrphans(context.Context) {}
