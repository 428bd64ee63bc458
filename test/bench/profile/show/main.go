// Command show profiles certservice of a source tree at saturation, and prints what it spends processor time on:
//
//	go run ./test/bench/profile/show [flags] [NAME=VALUE ...]
//
// The arguments are added to the environment of certservice. What make bench measures of this tree alone, and which
// parts it has, docs/performance.md says.
package main

import (
	"flag"
	"os"
	"path/filepath"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func main() {
	root := flag.String("root", ".", "the source tree, which may be an older one")
	connections := flag.Int("connections", 32, "connections that are kept")
	key := flag.String("key", "ECDSA-P256", "the kind of the leaf keys")
	during := flag.Duration("for", 10*time.Second, "how long is measured")
	keep := flag.String("keep", "", "a file to copy the profile to")
	flag.Parse()
	fixture.UseMemory()
	dir := fixture.Must(os.MkdirTemp("", "profile-"))
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "bin")
	fixture.Must(0, profile.Build(*root, bin))
	loader := fixture.Must(profile.BuildLoad(".", bin))
	result := fixture.Must(profile.Measure(bin, loader, dir, profile.Options{Connections: *connections, Key: *key,
		For: *during, Environment: flag.Args()}))
	fixture.Must(0, result.Write(os.Stdout))
	if *keep != "" {
		fixture.Must(0, os.WriteFile(*keep, fixture.Must(os.ReadFile(filepath.Join(dir, "cpu.pprof"))), 0o600))
	}
}
