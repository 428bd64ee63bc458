// Command show profiles certservice of a source tree at saturation, and prints what it spends processor time on:
//
//	go run ./test/bench/profile/show [flags] [NAME=VALUE ...]
//
// The arguments are added to the environment of certservice. With -handshakes it measures what resumed TLS sessions
// save, and with -compare the programs of several directories, in turn.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/fixture"
)

var (
	root        = flag.String("root", ".", "the source tree, which may be an older one")
	bin         = flag.String("bin", "", "a directory to build into, unless that is done; empty: a temporary one")
	connections = flag.String("connections", "32", "connections that are kept; of -compare several, comma-separated")
	keys        = flag.String("keys", "ECDSA-P256", "the kind of the leaf keys; of -compare several")
	during      = flag.Duration("for", 10*time.Second, "how long is measured")
	keep        = flag.String("keep", "", "a file to copy the profile to")
	handshakes  = flag.Bool("handshakes", false, "connections with and without resumption, in place of a profile")
	compare     = flag.String("compare", "", "directories with certservice, of which the first has devca")
	rounds      = flag.Int("rounds", 1, "of -compare")
)

func main() {
	flag.Parse()
	fixture.UseMemory()
	dir := fixture.Must(os.MkdirTemp("", "profile-"))
	defer os.RemoveAll(dir)
	if *bin == "" {
		*bin = filepath.Join(dir, "bin")
	}
	loader := filepath.Join(*bin, "load")
	if _, err := os.Stat(loader); err != nil {
		fixture.Must(0, profile.Build(*root, *bin))
		fixture.Must(profile.BuildLoad(".", *bin))
	}
	switch {
	case *handshakes:
		showHandshakes(loader, dir)
	case *compare != "":
		programs := strings.Split(*compare, ",")
		profile.WriteCompared(os.Stdout,
			fixture.Must(profile.Compare(loader, programs[0], programs, options(), *rounds)))
	default:
		result := fixture.Must(profile.Measure(*bin, loader, dir, options()[0]))
		fixture.Must(0, result.Write(os.Stdout))
		if *keep != "" {
			fixture.Must(0, os.WriteFile(*keep, fixture.Must(os.ReadFile(filepath.Join(dir, "cpu.pprof"))), 0o600))
		}
	}
}

// options are those of each kind of key with each number of connections.
func options() (all []profile.Options) {
	for key := range strings.SplitSeq(*keys, ",") {
		for number := range strings.SplitSeq(*connections, ",") {
			all = append(all, profile.Options{Connections: fixture.Must(strconv.Atoi(number)), Key: key, For: *during,
				Environment: flag.Args()})
		}
	}
	return all
}

func showHandshakes(loader, dir string) {
	for _, key := range []string{"P-256", "RSA-2048"} {
		for _, resume := range []bool{false, true} {
			at := fixture.Must(os.MkdirTemp(dir, "handshakes-"))
			h := fixture.Must(profile.MeasureHandshakes(*bin, loader, at, key, resume, *during))
			fmt.Printf("%-9s resume=%-6t %s\n", key, resume, h)
		}
	}
}
