//go:build !linux

package notify

import (
	"errors"
	"fmt"
	"runtime"
)

func supportsSignals() error {
	return fmt.Errorf("signalling the application needs Linux, not %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func (s *Signal) notifyNamed() error { return supportsSignals() }

func (s *Signal) notifyFile() error { return supportsSignals() }
