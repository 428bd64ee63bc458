// Command certfetcher fetches a certificate from a CertService and publishes keystore and
// truststore on a volume. It is configured by environment variables; --help lists them, and the
// commands.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/internal/startup"
)

func main() {
	ctx := startup.Context
	os.Exit(runUntilSignal(ctx, os.Stderr, func() int { return run(ctx, os.Args[1:], os.Stdout, os.Stderr) }))
}

// run is the program; what it returns is the exit code. The end of ctx is that of its work.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	defer rescue(stderr, &code)
	return newApp().Run(ctx, args, stdout, stderr)
}

// fetchOnce is the command run.
func fetchOnce(c *program.Call) int {
	setup := load(c.Stderr)
	if setup.failure == nil {
		setup.failure = fetch(c.Context, setup)
	}
	if setup.failure != nil {
		return report(setup)
	}
	return 0
}

// check is the command of that name: it asks nobody.
func check(c *program.Call) int {
	setup := load(c.Stderr)
	if setup.failure == nil {
		setup.failure = unusableIdentity(setup)
	}
	if setup.failure != nil {
		return report(setup)
	}
	return c.Print(func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "the configuration and the mutual TLS material are valid")
		return err
	})
}

// fetch runs one enrolment until it ends or ctx does, or goes on as a sidecar.
func fetch(ctx context.Context, s setup) error {
	startup.SurvivePipes()
	enroller := &enroll.Enroller{
		Config: s.config.Settings, Identity: func() *mtls.Identity { return s.identity },
		UserAgent: userAgent(), Log: s.log, Now: time.Now,
	}
	if s.config.Sidecar.Enabled {
		return runSidecar(ctx, s, enroller)
	}
	_, err := enroller.Run(ctx)
	return err
}

// runSidecar fetches as in init mode and then renews until ctx ends.
func runSidecar(ctx context.Context, s setup, enroller *enroll.Enroller) error {
	keeper := sidecar.New(sidecar.Config{
		Settings: s.config.Sidecar, Dir: s.config.Output.Dir, Certificates: enroller, Notify: s.notify, Merge: s.merge,
		Identity: s.identity, IdentityFiles: s.config.TLS, Log: s.log,
	})
	enroller.Identity, enroller.NotePending = keeper.CurrentIdentity, s.merge != nil || s.notify.Notifies()
	return keeper.Run(ctx)
}

func userAgent() string { return "certfetcher/" + program.Version() }
