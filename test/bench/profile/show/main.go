// Command show profiles certservice of a source tree at saturation, and prints what it spends processor time on:
//
//	go run ./test/bench/profile/show [-root DIRECTORY] [-connections N] [-key KIND] [-for TIME] [-keep FILE] [NAME=VALUE ...]
//
// The arguments are added to the environment of certservice. With -handshakes it measures what resumed sessions save,
// and with -compare the programs of several directories, in turn.
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

func main() {
	root := flag.String("root", ".", "the source tree, which may be an older one")
	connections := flag.Int("connections", 32, "connections that are kept")
	key := flag.String("key", "ECDSA-P256", "the kind of the leaf keys")
	during := flag.Duration("for", 10*time.Second, "how long is measured")
	keep := flag.String("keep", "", "a file to copy the profile to")
	bin := flag.String("bin", "", "a directory to build into, and to build in no second time; empty: a temporary one")
	handshakes := flag.Bool("handshakes", false, "connections with and without resumption, in place of a profile")
	compare := flag.String("compare", "", "directories with certservice, comma-separated, in place of a profile; the"+
		" first also has devca")
	rounds := flag.Int("rounds", 1, "of -compare")
	sets := flag.String("connections-of", "32,256", "numbers of connections of -compare")
	keys := flag.String("keys", "ECDSA-P256", "kinds of leaf keys of -compare")
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
	if *compare != "" {
		programs := strings.Split(*compare, ",")
		var options []profile.Options
		for key := range strings.SplitSeq(*keys, ",") {
			for n := range strings.SplitSeq(*sets, ",") {
				options = append(options, profile.Options{Key: key, Connections: fixture.Must(strconv.Atoi(n)), For: *during})
			}
		}
		profile.WriteCompared(os.Stdout, fixture.Must(profile.Compare(filepath.Join(*bin, "load"), programs[0], programs,
			options, *rounds)))
		return
	}
	if *handshakes {
		showHandshakes(*bin, *during)
		return
	}
	result := fixture.Must(profile.Measure(*bin, filepath.Join(*bin, "load"), dir,
		profile.Options{Connections: *connections, Key: *key, For: *during, Environment: flag.Args()}))
	fixture.Must(0, result.Write(os.Stdout))
	if *keep != "" {
		fixture.Must(0, os.WriteFile(*keep, fixture.Must(os.ReadFile(filepath.Join(dir, "cpu.pprof"))), 0o600))
	}
}

// showHandshakes measures each twice, in turn.
func showHandshakes(bin string, during time.Duration) {
	for range 2 {
		for _, key := range []string{"P-256", "RSA-2048"} {
			for _, resume := range []bool{false, true} {
				dir := fixture.Must(os.MkdirTemp("", "profile-"))
				h := fixture.Must(profile.MeasureHandshakes(bin, filepath.Join(bin, "load"), dir, key, resume, during))
				fmt.Printf("%-9s resume=%-6t %s\n", key, resume, h)
				os.RemoveAll(dir)
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
