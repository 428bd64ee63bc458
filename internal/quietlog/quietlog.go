// Package quietlog turns the standard logger off, by being imported. Our programs log through log/slog
// alone, one JSON object on a line; a dependency's remark through package log would break whoever reads
// that. (VictoriaMetrics/metrics makes one while it is initialised, on machines with cgroups of version 1.)
//
// It imports next to nothing, so that it is initialised before the dependencies it is about: Go
// initialises packages in the order of their paths as soon as their own imports are.
package quietlog

import (
	"io"
	"log"
)

func init() { log.SetOutput(io.Discard) }
