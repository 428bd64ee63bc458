// Command demo shows the main job for real, on loopback and with nothing else installed: it starts the
// built devca and, speaking CMP to it, the built certservice behind mutual TLS with throwaway
// identities, runs the built certfetcher as an init container would be run, and prints what is on the volume.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "certfetcher-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := fixture.StartStack("bin", dir)
	if err != nil {
		return err
	}
	defer s.Stop()
	fmt.Printf("devca is a CA made a moment ago. certservice asks it over CMP, and listens on\n%s\n"+
		"with mutual TLS. certfetcher is run as an init container would be, once for each output type.\n", s.URL)

	for _, outputType := range []string{"P12", "JKS", "PEM"} {
		volume := filepath.Join(dir, "volume-"+outputType)
		if err := fetch(s, outputType, volume); err != nil {
			return err
		}
		report, err := inspect.Dir(volume)
		if err != nil {
			return fmt.Errorf("reading the volume: %w", err)
		}
		if err := report.WriteText(os.Stdout, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// fetch runs certfetcher with the environment that a pod's manifest would give it.
func fetch(s *fixture.Stack, outputType, volume string) error {
	fmt.Printf("\n--- OUTPUT_TYPE=%s ---\n", outputType)
	command := exec.Command("bin/certfetcher")
	command.Env = fixture.Environment(s.URL, s.Dir, volume, "OUTPUT_TYPE="+outputType, "KEY_ALGORITHM=RSA-2048",
		"SANS=app.example.org,app,192.0.2.10", "LOG_FORMAT=text")
	start := time.Now()
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("running %s (make build makes it): %w\n%s", command.Path, err, out)
	}
	fmt.Printf("certfetcher exited with 0 after %d ms\n\n", time.Since(start).Milliseconds())
	return nil
}
