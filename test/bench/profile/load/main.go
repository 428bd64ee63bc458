// Command load has certificates enrolled on kept connections, as many at a time as there are connections:
//
//	load URL DIRECTORY KEY CONNECTIONS TIME
//
// The directory has the client's identity. Once all connections are warm it prints a line, and begins to measure when
// its standard input ends. Then it prints what it has found, the type profile.Load in JSON.
//
// It also makes connections for one request each, and prints the type profile.Handshakes:
//
//	load handshakes URL DIRECTORY RESUME TIME
package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const warmUp = time.Second

func main() {
	if os.Args[1] == "handshakes" {
		handshakes(os.Args[2], os.Args[3], os.Args[4] == "true", fixture.Must(time.ParseDuration(os.Args[5])))
		return
	}
	url, dir, key := os.Args[1], os.Args[2], os.Args[3]
	connections := fixture.Must(strconv.Atoi(os.Args[4]))
	during := fixture.Must(time.ParseDuration(os.Args[5]))
	request := chaos.Enrolment(url, key)
	client := chaos.Kept(dir, connections)
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

// clients is how many there are at a time, each with one connection.
const clients = 16

// handshakes makes connections one after the other. Each client has a session of its own.
func handshakes(url, dir string, resume bool, during time.Duration) {
	begin := time.Now()
	var connections, resumed atomic.Int64
	chaos.Together(clients, clients, func(int) {
		config := chaos.Identity(dir)
		if resume {
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}
		for time.Since(begin) < during {
			response := fixture.Must(client.Get(url))
			fixture.Must(io.Copy(io.Discard, response.Body))
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				fmt.Fprintln(os.Stderr, response.Status)
				os.Exit(1)
			}
			connections.Add(1)
			if response.TLS.DidResume {
				resumed.Add(1)
			}
			client.CloseIdleConnections()
		}
	})
	fixture.Must(0, json.NewEncoder(os.Stdout).Encode(profile.Handshakes{Connections: int(connections.Load()),
		Resumed: int(resumed.Load()), Took: time.Since(begin)}))
}
