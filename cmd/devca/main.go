// Command devca is a development certification authority that answers CMP over HTTP. It keeps
// everything in memory, makes a new root at every start, and must never be used for production. It
// is configured by environment variables alone; --help lists them.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/startup"
)

func main() {
	stop := startup.EndWithin(1)
	os.Exit(run(startup.Context, stop, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; what it returns is the exit code: 0, 1 for a failure, 2 for a wrong
// configuration. It ends with ctx. serving is called when it begins to look at ctx itself.
func run(ctx context.Context, serving func() bool, args []string, stdout, stderr io.Writer) int {
	return newApp(serving).Run(ctx, args, stdout, stderr)
}

// newApp returns the program's commands.
func newApp(serving func() bool) *program.App {
	return &program.App{
		Name: "devca",
		Short: "devca is a certification authority for DEVELOPMENT ONLY. It answers CMP (RFC 9810, 9483, 9811), " +
			"keeps everything in memory, and makes a new root at every start. It is configured by environment " +
			"variables.",
		Default: "serve", Flags: []string{"version"}, UsageCode: exitUsage, FailedCode: exitFailed,
		Commands: []*program.Command{
			{Name: "serve", Run: func(c *program.Call) int { return runServe(c, serving) },
				Short: "run the CA",
				Long: "answers CMP (RFC 9810, 9483, 9811) at /, /pkix/, /.well-known/cmp[/p/{name}][/{operation}] " +
					"and /ejbca/publicweb/cmp/{alias}, until a signal ends it. It is for DEVELOPMENT ONLY.",
				Details: writeVariables,
				ExitCodes: []program.ExitCode{{Code: 0, Meaning: "stopped by SIGTERM or SIGINT"},
					{Code: exitFailed, Meaning: "failed"}, {Code: exitUsage, Meaning: "wrong usage or configuration"},
					{Code: startup.ExitTooFewFiles, Meaning: "too few files may be open (RLIMIT_NOFILE)"}}},
			{Name: "probe", Run: probe,
				Short: "tell by the exit code whether the CA at DEVCA_ADDR answers",
				Long:  "tells by its exit code whether the CA at DEVCA_ADDR answers.",
				ExitCodes: []program.ExitCode{{Code: 0, Meaning: "it does"}, {Code: exitFailed, Meaning: "it does not"},
					{Code: exitUsage, Meaning: "wrong usage"}}},
		},
	}
}

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// runServe is the command serve.
func runServe(c *program.Call, serving func() bool) int {
	s, faults := loadSettings()
	log := s.log.Logger(c.Stderr)
	program.LogMisspelt(log, program.VariableNames(variables))
	if len(faults) > 0 {
		for _, fault := range faults {
			fmt.Fprintf(c.Stderr, "devca: %s\n", fault.Error())
		}
		if s.log.ForPeople(c.Stderr) {
			fmt.Fprintln(c.Stderr, "To do: set the variables as the lines above say. devca help serve describes all "+
				"of them.")
		}
		return exitUsage
	}
	startup.SurvivePipes()
	serving()
	if err := serve(c.Context, s, log); err != nil {
		fmt.Fprintf(c.Stderr, "devca: %v\n", err)
		return exitFailed
	}
	return 0
}

// probe asks the CA that runs beside it for an answer; any
// will do, because CMP is spoken by POST only.
func probe(c *program.Call) int {
	s, _ := loadSettings() // the CA has reported the faults
	if err := program.Probe(c.Context, s.addr, "/", func(int) bool { return true }); err != nil {
		fmt.Fprintf(c.Stderr, "devca probe: %v\n", err)
		return exitFailed
	}
	return 0
}

// Time limits of the server. Answers may be slow on purpose.
const (
	readTimeout     = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 10 * time.Second
)

// mostConnections leaves room for certservice with its default settings, and for others.
const mostConnections = 1024

// serve runs the CA until ctx ends, and then finishes what is in flight.
func serve(ctx context.Context, s settings, log *slog.Logger) error {
	program.ServerGC()
	s.ca.Log = log
	ca, err := devca.New(s.ca)
	if err != nil {
		return fmt.Errorf("making the CA: %w", err)
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("DEVCA_ADDR cannot be used: %w", err)
	}
	defer listener.Close()
	if s.caFile != "" {
		if err := writeFile(s.caFile, ca.RootPEM()); err != nil {
			return fmt.Errorf("writing the root for DEVCA_CA_FILE: %w", err)
		}
	}
	bounded := program.ListenFairly(listener, mostConnections, nil)
	server := &http.Server{
		ConnState: bounded.ConnState, MaxHeaderBytes: 64 << 10,
		Handler: ca, ReadTimeout: readTimeout, WriteTimeout: readTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelInfo),
	}
	log.Warn("DEVELOPMENT ONLY: this CA is not for production. It certifies all requests, and "+
		"its root is lost when it stops",
		"address", listener.Addr().String(), "root", pki.DN(ca.Root().RawSubject), "root_sha256",
		fmt.Sprintf("%x", sha256.Sum256(ca.Root().Raw)),
		"ca_file", s.caFile, "validity", s.ca.Validity, "response_protection",
		string(s.ca.ResponseProtection), "faults", s.faults)
	if !s.loopback {
		log.Warn("DEVELOPMENT ONLY: other machines can reach this CA, because DEVCA_ADDR says so", "address", s.addr)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(bounded) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping", "issued", ca.Stats().Issued)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return fmt.Errorf("finishing what is in flight: %w", errors.Join(err, server.Close()))
	}
	return nil
}

// writeFile writes a file as a whole or not at all: readers
// that wait for it to appear never see a part.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, after the rename
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
