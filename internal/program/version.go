// Package program has what every program of this repository does: it reads the environment by a table of variables,
// logs, prints its help and its version, listens, serves series and answers or asks for a probe.
package program

import "runtime/debug"

// version is set by the linker: -X github.com/certfetcher/certfetcher/internal/program.version=v1.2.3.
var version string

// Version is the version that was linked in, or that of the module when go install built the program.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
