// Command certfetcher fetches a certificate from a CertService and publishes keystore and
// truststore on a volume. It is configured by environment variables alone; --help lists them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/certfetcher/certfetcher/internal/config"
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
	if len(args) > 0 {
		switch args[0] {
		case "probe":
			return probe(args[1:], stdout, stderr)
		case "inspect":
			return inspectVolume(args[1:], stdout, stderr)
		case "doctor":
			return runDoctor(ctx, args[1:], stdout, stderr)
		case "postprocess":
			return postprocess(args[1:], stdout, stderr)
		}
	}
	check := false
	done, err := program.ParseFlags("certfetcher", args, &check, stdout, writeUsage)
	switch {
	case done:
		return exitCodeOf(stderr, err)
	case err != nil:
		return report(reportUsage(err, stderr))
	}

	setup := load(stderr)
	if setup.failure == nil && check {
		setup.failure = unusableIdentity(setup)
	}
	if setup.failure == nil && !check {
		setup.failure = fetch(ctx, setup)
	}
	if setup.failure != nil {
		return report(setup)
	}
	if check {
		_, err := fmt.Fprintln(stdout, "the configuration and the mutual TLS material are valid")
		return exitCodeOf(stderr, err)
	}
	return 0
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

func writeUsage(w io.Writer) error {
	_, err := fmt.Fprint(w,
		`certfetcher fetches a certificate from a CertService and publishes keystore and truststore on a volume.
With MODE=sidecar it keeps running and renews it.

Usage: certfetcher [--check | --help | --version]
       certfetcher probe                     exit code 0 when the volume holds a valid certificate
       certfetcher inspect [dir] [-o json]   print what a volume holds
       certfetcher doctor [-o json]          check the deployment, without requesting a certificate
       certfetcher postprocess               merge truststores and swap keystores
Each of these commands has a --help of its own.

It is configured by environment variables:
`)
	if err != nil {
		return err
	}
	if err := program.WriteUsage(w, config.Variables); err != nil {
		return err
	}
	return enroll.WriteExitCodes(w)
}

func asksForHelp(arg string) bool { return arg == "--help" || arg == "-help" || arg == "-h" }

// exitCodeOf turns an error of writing to standard output, a closed pipe mostly, into an exit code.
func exitCodeOf(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "certfetcher: writing to standard output: %v\n", err)
		return enroll.StageOther.ExitCode()
	}
	return 0
}
