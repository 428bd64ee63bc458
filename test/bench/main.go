// Command bench measures the built programs on loopback: complete runs of certfetcher, as the operating
// system accounts for them, and certservice under load with devca behind it.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

const (
	program = "bin/certfetcher" // make build makes it
	runs    = 30
)

func main() {
	fixture.UseMemory() // as an emptyDir for keys: so that the figures are not those of this machine's disk
	dir := fixture.Must(os.MkdirTemp("", "certfetcher-bench-"))
	defer os.RemoveAll(dir)
	fetches(dir)
	load(dir)
	policies(filepath.Join(dir, "policies"))
}

// fetches measures complete runs of certfetcher.
func fetches(dir string) {
	s := fixture.Must(service.Start(dir, service.Options{}))
	defer s.Stop()
	fmt.Printf("%s: %.2f MB\n", program, float64(fixture.Must(os.Stat(program)).Size())/1e6)
	fmt.Printf("%-12s %-5s %14s %14s %22s %14s\n", "key", "type", "wall median", "wall max",
		"beyond key generation", "peak memory")
	for _, algorithm := range []string{"RSA-2048", "ECDSA-P256"} {
		for _, outputType := range []string{"P12", "JKS", "PEM"} {
			measure(s, dir, algorithm, outputType)
		}
	}
}

// measure prints medians over runs, each on an empty volume.
func measure(s *service.Service, dir, algorithm, outputType string) {
	var wall, beyond []time.Duration
	var memory []int64
	for i := range runs + 1 {
		volume := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", algorithm, outputType, i))
		command := exec.Command(program)
		command.Env = s.Environment(volume, "OUTPUT_TYPE="+outputType, "KEY_ALGORITHM="+algorithm,
			"SANS=app.example.org", "KEYSTORE_PATH="+s.Dir+"/client.p12", "TRUSTSTORE_PATH="+s.Dir+"/truststore.p12",
			"KEYSTORE_PASSWORD="+fixture.Password, "TRUSTSTORE_PASSWORD="+fixture.Password)
		start := time.Now()
		log, err := command.CombinedOutput()
		elapsed := time.Since(start)
		if err != nil {
			panic(fmt.Sprintf("run %d: %v\n%s", i, err, log))
		}
		if i == 0 {
			continue // warm-up
		}
		wall, beyond = append(wall, elapsed), append(beyond, elapsed-keyGeneration(log))
		memory = append(memory, command.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) // KiB on Linux
	}
	fmt.Printf("%-12s %-5s %11.1f ms %11.1f ms %19.1f ms %10.1f MiB\n", algorithm, outputType,
		milliseconds(median(wall)), milliseconds(slices.Max(wall)), milliseconds(median(beyond)),
		float64(median(memory))/1024)
}

var madeKey = regexp.MustCompile(`"msg":"made a key pair".*"duration_ms":([\d.]+)`)

// keyGeneration reads from the log how long the key took, which is mostly luck in finding primes.
func keyGeneration(log []byte) time.Duration {
	took := string(madeKey.FindSubmatch(log)[1])
	return time.Duration(fixture.Must(strconv.ParseFloat(took, 64)) * float64(time.Millisecond))
}

func median[T time.Duration | int64](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
