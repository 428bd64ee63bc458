// Package program has what every program of this repository does: it reads
// the environment by a table of variables, logs, prints its help and its
// version, listens, serves series and answers or asks for a probe.
package program

import (
	"os"
	"runtime/debug"
)

// version is set by the linker: -X
// github.com/certfetcher/certfetcher/internal/program.version=v1.2.3.
var version string

// Documentation is where the documents are read; each file of docs is below it.
const Documentation = "https://github.com/certfetcher/certfetcher/blob/main/docs/"

// Version is the version that was linked in, or that of the
// module when go install built the program.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// ServerGC lets the garbage collector of a server wait until the heap is four times what is in
// use, unless GOGC says otherwise. What a request leaves is little and all of it garbage:
// collecting it as often as Go does by default took an eighth of the processor's time under load.
// GOMEMLIMIT still bounds it.
func ServerGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300)
	}
}
