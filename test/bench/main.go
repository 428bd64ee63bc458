// Command bench measures the built programs on loopback: complete runs of certfetcher, as the operating
// system accounts for them, and certservice under load with devca behind it.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

const (
	program = "bin/certfetcher"
	runs    = 30
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp(memoryFileSystem(), "certfetcher-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := fetches(dir); err != nil {
		return err
	}
	return load(dir)
}

// fetches measures complete runs of certfetcher.
func fetches(dir string) error {
	s, err := service.Start(dir, service.Options{})
	if err != nil {
		return err
	}
	defer s.Stop()
	info, err := os.Stat(program)
	if err != nil {
		return fmt.Errorf("%w (make build makes it)", err)
	}
	fmt.Printf("%s: %.2f MB\n", program, float64(info.Size())/1e6)
	fmt.Printf("%-12s %-5s %14s %14s %22s %14s\n", "key", "type", "wall median", "wall max",
		"beyond key generation", "peak memory")
	for _, algorithm := range []string{"RSA-2048", "ECDSA-P256"} {
		for _, outputType := range []string{"P12", "JKS", "PEM"} {
			if err := measure(s, dir, algorithm, outputType); err != nil {
				return err
			}
		}
	}
	return nil
}

// memoryFileSystem is where the volumes go: memory, as an emptyDir for keys should be, so that the figures
// are not those of this machine's disk, which syncs files in 1 to 10 ms each.
func memoryFileSystem() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// measure prints medians over runs, each on an empty volume.
func measure(s *service.Service, dir, algorithm, outputType string) error {
	var wall, beyond []time.Duration
	var memory []int64
	for i := range runs + 1 {
		volume := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", algorithm, outputType, i))
		command := exec.Command(program)
		command.Env = s.Environment(volume, "OUTPUT_TYPE="+outputType, "KEY_ALGORITHM="+algorithm,
			"SANS=app.example.org",
			"KEYSTORE_PATH="+filepath.Join(s.Dir, "client.p12"), "KEYSTORE_PASSWORD="+fixture.Password,
			"TRUSTSTORE_PATH="+filepath.Join(s.Dir, "truststore.p12"), "TRUSTSTORE_PASSWORD="+fixture.Password)
		var log bytes.Buffer
		command.Stderr = &log
		start := time.Now()
		err := command.Run()
		elapsed := time.Since(start)
		if err != nil {
			return fmt.Errorf("run %d: %w\n%s", i, err, log.String())
		}
		if i == 0 {
			continue // warm-up
		}
		generation, err := keyGeneration(&log)
		if err != nil {
			return err
		}
		wall, beyond = append(wall, elapsed), append(beyond, elapsed-generation)
		memory = append(memory, command.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) // KiB on Linux
	}
	fmt.Printf("%-12s %-5s %11.1f ms %11.1f ms %19.1f ms %10.1f MiB\n", algorithm, outputType,
		milliseconds(median(wall)), milliseconds(slices.Max(wall)), milliseconds(median(beyond)),
		float64(median(memory))/1024)
	return nil
}

// keyGeneration reads from the log how long the key took, which is mostly luck in finding primes.
func keyGeneration(log *bytes.Buffer) (time.Duration, error) {
	lines := bufio.NewScanner(bytes.NewReader(log.Bytes()))
	for lines.Scan() {
		var event struct {
			Message      string  `json:"msg"`
			Milliseconds float64 `json:"duration_ms"`
		}
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Message == "made a key pair" {
			return time.Duration(event.Milliseconds * float64(time.Millisecond)), nil
		}
	}
	return 0, fmt.Errorf("the log does not say how long the key took:\n%s", log.String())
}

func median[T time.Duration | int64](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
