package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// exitNotValid is the exit code of a probe that finds no
// valid certificate, and of an inspection of nothing.
const exitNotValid = 1

// exitUnreadable is the exit code of an inspection of what
// cannot be read, and that of certificates which cannot.
const exitUnreadable = int(enroll.StageConversion)

// newApp returns the program's commands.
func newApp() *program.App {
	return &program.App{
		Name: "certfetcher",
		Short: "certfetcher fetches a certificate from a CertService and publishes keystore and truststore on a " +
			"volume. With MODE=sidecar it keeps running and renews it. It is configured by environment variables.",
		Default: "run", Flags: []string{"check", "version"},
		UsageCode: enroll.StageClientConfiguration.ExitCode(), FailedCode: enroll.StageOther.ExitCode(),
		WrongUsage: reportUsage,
		Commands: []*program.Command{
			{Name: "run", Run: fetchOnce,
				Short: "fetch a certificate and publish it; as a sidecar also renew it",
				Long: "fetches a certificate from a CertService, verifies it, and publishes keystore and truststore " +
					"on a volume. With MODE=sidecar it keeps running and renews the certificate.",
				Details: writeVariables, ExitCodes: exitCodes()},
			{Name: "check", Run: check,
				Short: "report all faults of the configuration, without asking anyone",
				Long: "reports all faults of the configuration and of the mutual TLS material, without asking " +
					"anyone. The environment is that of certfetcher run.",
				ExitCodes: exitCodes(enroll.StageClientConfiguration, enroll.StageCSRConfiguration,
					enroll.StageTLSConfiguration)},
			{Name: "doctor", Run: runDoctor,
				Short: "check the deployment, without requesting a certificate",
				Long: "checks the deployment without requesting a certificate, and says what to do about what it " +
					"finds.\n\nEverything but the flags it takes from the environment of the container that it " +
					"runs in, as certfetcher help run describes it. The exit code is that of the first failed check.",
				Flags: []program.Flag{program.OutputFlag, checks.WaitFlag,
					{Name: "uid", Value: "N",
						Help: "number of the application's user: checks whether it will be able to read the files; " +
							"APP_UID stands for it"},
					{Name: "gid", Value: "N", Help: "number of the application's group; APP_GID stands for it"}},
				ExitCodes: exitCodes(),
				Examples:  []string{"doctor", "doctor --wait 5m", "doctor -o json --uid 1000 --gid 1000"}},
			{Name: "inspect", Run: inspectPath,
				Short: "print what a volume or a file holds, without its secrets",
				Long: "prints what a volume, a mounted TLS Secret of Kubernetes (tls.crt, tls.key, ca.crt), or one " +
					"JKS, PKCS#12 or PEM file holds, without its secrets.\n\nThe next renewal is the one that a " +
					"sidecar with the same environment plans when it finds this volume; one asked for, or tried " +
					"again after a failure, comes at another time.",
				Args: []program.Argument{{Name: "path", Optional: true,
					Help: "the directory or file to look at; the directory OUTPUT_PATH without it"}},
				Flags: []program.Flag{program.OutputFlag, {Name: "password-file", Value: "FILE",
					Help: "file with the password of the file to look at; without it, the one beside it that ends in " +
						".pass in place of its ending, such as keystore.pass for keystore.p12"}},
				ExitCodes: []program.ExitCode{{Code: 0, Meaning: "everything was read"},
					{Code: exitNotValid, Meaning: "nothing is there, or wrong usage"},
					{Code: exitUnreadable, Meaning: "something could not be read: the lines with UNREADABLE say why"}},
				Examples: []string{"inspect", "inspect /var/run/certs -o json",
					"inspect truststore.jks --password-file password"}},
			{Name: "probe", Run: probe,
				Short: "tell by the exit code whether the volume holds a valid certificate",
				Long: "tells by its exit code whether the volume holds a valid certificate in all configured files, " +
					"and else in one line why not. It uses no network.",
				ExitCodes: []program.ExitCode{{Code: 0, Meaning: "the volume holds a valid certificate"},
					{Code: exitNotValid, Meaning: "it does not"}}},
			{Name: "postprocess", Run: postprocess,
				Short: "merge truststores and swap keystores",
				Long: "merges truststores and swaps keystores, as the ONAP post-processor did. A second run changes " +
					"nothing.",
				Details: truststore.WriteUsage, ExitCodes: truststore.ExitCodes},
		},
	}
}

func writeVariables(w io.Writer) error {
	if _, err := io.WriteString(w, "Environment variables\n"); err != nil {
		return err
	}
	return program.WriteUsage(w, config.Variables)
}

// exitCodes are success and stages; all of them when none is named.
func exitCodes(stages ...enroll.Stage) []program.ExitCode {
	if stages == nil {
		stages = enroll.Stages()
	}
	codes := []program.ExitCode{{Code: 0, Meaning: "success"}}
	for _, stage := range stages {
		codes = append(codes, program.ExitCode{Code: stage.ExitCode(), Meaning: stage.Meaning()})
	}
	return codes
}

// probe tells by its exit code whether the volume of the configuration holds a valid certificate,
// and else in one line why it does not.
func probe(c *program.Call) int {
	cfg, err := config.Load()
	if err == nil {
		err = enroll.Check(cfg.Settings, time.Now())
	}
	if err != nil {
		fmt.Fprintf(c.Stderr, "certfetcher: %v\n", err)
		return exitNotValid
	}
	return 0
}

// inspectPath prints what is in a directory, by default that of the configuration, or in a file.
func inspectPath(c *program.Call) int {
	path := strings.Join(c.Args, "")
	// Whatever is wrong with the environment, which may be
	// another container's, what is there can be shown.
	cfg, faults := loadConfig()
	var err error
	if path == "" {
		path = cfg.Output.Dir
		if at := slices.IndexFunc(faults, func(f config.Fault) bool { return f.Variable == "OUTPUT_PATH" }); at >= 0 {
			err = fmt.Errorf("no directory is named, and %w", faults[at])
		}
	}
	var report *inspect.Report
	info, _ := os.Stat(path) // which Dir does again, and says what is wrong
	isFile := info != nil && !info.IsDir() || c.Flag("password-file") != ""
	switch {
	case err != nil:
	case isFile:
		report, err = inspect.OneFile(path, c.Flag("password-file"))
	default:
		report, err = inspect.Dir(path)
	}
	if err != nil {
		fmt.Fprintf(c.Stderr, "certfetcher: %v\n", err)
		return exitNotValid
	}
	now := time.Now()
	if cert := report.Certificate; cert != nil {
		var due time.Time
		// Where the environment is wrong about it, the moment is not known.
		if !isFile && !slices.ContainsFunc(faults, func(f config.Fault) bool {
			return strings.HasPrefix(f.Variable, "RENEW_")
		}) {
			due = cfg.Sidecar.Due(sidecar.Certificate{NotBefore: cert.NotBefore, NotAfter: cert.NotAfter})
		}
		report.Plan(now, due)
		if !isFile {
			if record := enroll.ReadRecord(path, cert.Leaf()); record != nil {
				report.Requested = (*inspect.Requested)(&record.Request)
			}
		}
	}
	code := c.Print(func(w io.Writer) error {
		if c.Flag("output") == "json" {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			return encoder.Encode(report)
		}
		return report.WriteText(w, now)
	})
	if code == 0 && report.Unreadable() {
		code = exitUnreadable
	}
	return code
}

// runDoctor checks the deployment and prints what it found;
// its exit code is that of the first failed check.
func runDoctor(c *program.Call) int {
	uid, gid := cmp.Or(c.Flag("uid"), os.Getenv("APP_UID")), cmp.Or(c.Flag("gid"), os.Getenv("APP_GID"))
	reader, err := doctor.ParseReader(uid, gid)
	if err != nil {
		return c.WrongUsage(err.Error())
	}
	return checks.RunCommand(c, "certfetcher", enroll.StageOther.ExitCode(), func(ctx context.Context) checks.Report {
		setup, faults := readEnvironment(io.Discard) // faults are in the report
		return doctor.Run(ctx, doctor.Options{
			Config: setup.config, Faults: faults, Reader: reader, UserAgent: userAgent(), Merge: setup.merge,
			Notify: setup.notify,
		})
	})
}

// postprocess merges truststores and swaps keystores once, as the ONAP post-processor did. Its
// variables and exit codes are that program's.
func postprocess(c *program.Call) int {
	settings, _ := config.Load() // the log's settings are read even when this container is for nothing else
	log := settings.Log.Logger(c.Stderr)
	loaded.Store(&setup{config: settings, log: log})
	program.LogMisspelt(log, knownVariables())
	cfg, err := truststore.Load()
	if err == nil {
		_, err = truststore.Run(cfg, log)
	}
	if err == nil {
		return 0
	}
	code := truststore.ExitCode(err)
	log.Error("certfetcher postprocess failed", "error", err.Error(), "exit_code", code)
	writeTerminationMessage(settings.TerminationMessagePath, "postprocess: "+err.Error(), log)
	return code
}
