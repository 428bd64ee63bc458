package output

import "github.com/certfetcher/certfetcher/internal/files"

// disk changes a volume, and moves aside what is not certfetcher's.
type disk struct {
	files.Disk
	aside func(path, to, reason string) // is told what was moved aside; may be nil
}

// FileError is a step on the volume that failed.
type FileError = files.Error
