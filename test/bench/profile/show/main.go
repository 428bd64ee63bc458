// Command show profiles certservice of a source tree at saturation, and prints what it spends processor time on:
//
//	go run ./test/bench/profile/show [-root DIRECTORY] [-connections N] [-key KIND] [-for TIME] [-keep FILE] [NAME=VALUE ...]
//
// The arguments are added to the environment of certservice.
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
	bin := flag.String("bin", "", "a directory to build into, and to build in no second time; empty: a temporary one")
	flag.Parse()

	fixture.UseMemory()
	dir := fixture.Must(os.MkdirTemp("", "profile-"))
	defer os.RemoveAll(dir)
	built := *bin != "" && exists(filepath.Join(*bin, "load"))
	if *bin == "" {
		*bin = filepath.Join(dir, "bin")
	}
	if !built {
		fixture.Must(0, profile.Build(*root, *bin))
		fixture.Must(profile.BuildLoad(".", *bin))
	}
	result := fixture.Must(profile.Measure(*bin, filepath.Join(*bin, "load"), dir,
		profile.Options{Connections: *connections, Key: *key, For: *during, Environment: flag.Args()}))
	fixture.Must(0, result.Write(os.Stdout))
	if *keep != "" {
		fixture.Must(0, os.WriteFile(*keep, fixture.Must(os.ReadFile(filepath.Join(dir, "cpu.pprof"))), 0o600))
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
