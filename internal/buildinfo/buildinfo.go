// Package buildinfo says which version of a program this is.
package buildinfo

import "runtime/debug"

// version is set by the linker: -X github.com/certfetcher/certfetcher/internal/buildinfo.version=v1.2.3.
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
