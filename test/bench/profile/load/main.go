// Command load has certificates enrolled on kept connections, as many at a time as there are connections:
//
//	load URL DIRECTORY KEY CONNECTIONS TIME
//
// The directory has the client's identity. Once all connections are warm it prints a line, and begins to measure when
// its standard input ends. Then it prints what it has found, the type profile.Load in JSON.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const warmUp = time.Second

func main() {
	url, dir, key := os.Args[1], os.Args[2], os.Args[3]
	connections := fixture.Must(strconv.Atoi(os.Args[4]))
	during := fixture.Must(time.ParseDuration(os.Args[5]))
	request := chaos.Enrolment(url, key)
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, TLSClientConfig: chaos.Identity(dir)}}
	enrol := func(during time.Duration) (*chaos.Latencies, time.Duration) {
		begin, seen := time.Now(), &chaos.Latencies{}
		chaos.Together(connections, connections, func(int) {
			for first := true; first || time.Since(begin) < during; first = false {
				seen.Measure(func() error { return chaos.Ask(client, request, http.StatusOK) })
			}
		})
		if len(seen.Failures) > 0 {
			fmt.Fprintf(os.Stderr, "%d of %d requests failed: %v\n", len(seen.Failures), len(seen.Took), seen.Few())
			os.Exit(1)
		}
		return seen, time.Since(begin)
	}
	enrol(warmUp)
	fmt.Println("ready")
	fixture.Must(io.Copy(io.Discard, os.Stdin))
	seen, took := enrol(during)
	fixture.Must(0, json.NewEncoder(os.Stdout).Encode(profile.Load{Enrolments: len(seen.Took), Took: took,
		P50: seen.Quantile(0.5), P99: seen.Quantile(0.99), Max: seen.Quantile(1)}))
}
