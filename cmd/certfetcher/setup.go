package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/requestid"
	"github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/internal/stack"
	"github.com/certfetcher/certfetcher/internal/truststore"
	"github.com/certfetcher/certfetcher/output"
)

// setup is what a run starts from. When failure is set, only
// log and config.TerminationMessagePath may be used.
type setup struct {
	config   *config.Fetcher
	identity *mtls.Identity
	notify   notify.Config      // for the sidecar
	merge    *truststore.Config // for the sidecar; nil: nothing to merge
	log      *slog.Logger
	people   io.Writer // where the log is lines for people; nil: it is for programs
	failure  error
}

// load reads the environment and the mutual TLS material. Faults in either are logged one by one,
// so that all are known after one run; the failure is the first in the contract's order. A single
// fault is logged as the failure.
func load(stderr io.Writer) setup {
	s, faults := readEnvironment(stderr)
	tlsFaults := false
	for _, fault := range faults {
		if len(faults) > 1 {
			s.log.Error("the configuration has a fault", "variable", fault.Variable, "error", fault.Problem)
		}
		tlsFaults = tlsFaults || fault.Stage == enroll.StageTLSConfiguration
	}
	for _, warning := range s.config.Warnings {
		s.log.Warn(program.NeedsAttention, "variable", warning.Variable, "error", warning.Problem)
	}
	if len(faults) > 0 {
		s.failure = &enroll.Error{Stage: faults.Stage(), Err: faults}
	}
	if tlsFaults {
		return s
	}

	var err error
	s.identity, err = mtls.Load(s.config.TLS)
	if s.config.CMP != nil {
		_, unreadable := s.config.CMP.LoadAnchors()
		err = mtls.JoinErrors(err, unreadable)
	}
	if err != nil {
		if s.failure != nil {
			s.log.Error("the mutual TLS material has a fault", "error", err.Error())
		} else { // which is logged as such
			s.failure = &enroll.Error{Stage: enroll.StageTLSConfiguration, Err: err}
		}
		return s
	}
	s.identity.LogWarnings(s.log)
	return s
}

// reportUsage says that the arguments are wrong. Where they are a container's, the log and the termination message say
// it: the configuration says where those are. The commands that are run beside it only print it.
func reportUsage(command string, err error, stderr io.Writer) {
	if command != "" && command != "run" && command != "postprocess" {
		fmt.Fprintf(stderr, "certfetcher %s: %v\n", command, err)
		return
	}
	var s setup
	s.config, _ = loadConfig()
	s.log = s.config.Log.Logger(stderr)
	s.failure = &enroll.Error{Stage: enroll.StageClientConfiguration, Err: err}
	report(s)
}

// readEnvironment is load without looking at any file but those that hold a variable's value.
func readEnvironment(stderr io.Writer) (setup, config.Faults) {
	var s setup
	var faults config.Faults
	s.config, faults = loadConfig()
	s.log = s.config.Log.Logger(stderr)
	if s.config.Log.ForPeople(stderr) {
		s.people = stderr
	}
	loaded.Store(&setup{config: s.config, log: s.log})
	if s.config.Sidecar.Enabled {
		var more config.Faults // of the first part in the contract's order
		s.merge, more = loadMerge(s.config.Output.Dir)
		var found []program.Fault
		s.notify, found = notify.New(s.config.Notify,
			notify.Options{UserAgent: userAgent(), Environ: os.Environ(), Log: s.log})
		for _, fault := range found {
			more = append(more, config.NewFault(fault.Variable, fault.Problem))
		}
		faults = append(more, faults...)
	}
	return s, faults
}

// unusableIdentity says why a CertService has to refuse identity or token,
// as far as that is known here; nil for nothing. A run asks all the
// same: the other side decides, and this machine's clock may be wrong.
func unusableIdentity(s setup) error {
	now := time.Now()
	problems := s.identity.Problems(now)
	if path := s.config.Request.TokenPath; path != "" {
		token, err := client.LoadToken(path)
		if err != nil {
			problems = append(problems, err.Error())
		} else if problem := token.Problem(now); problem != "" {
			problems = append(problems, fmt.Sprintf("TOKEN_PATH %q: %s", path, problem))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return &enroll.Error{Stage: enroll.StageTLSConfiguration, Err: errors.New(strings.Join(problems, "; "))}
}

// report says why the run failed: in the log, in the
// Kubernetes termination message and by the exit code.
func report(s setup) int {
	stage, reason := enroll.StageOf(s.failure), s.failure.Error()
	log := s.log
	if faults, ok := errors.AsType[config.Faults](s.failure); ok && len(faults) > 1 {
		reason = faults.Variables() // the rest has been logged
	} else if ok {
		log = log.With("variable", faults[0].Variable)
	}
	attributes := []any{"error", reason, "stage", stage.String(), "exit_code", stage.ExitCode()}
	if id := enroll.RequestIDOf(s.failure); id != "" {
		attributes = append(attributes, requestid.LogKey, id)
	}
	log.Error("certfetcher failed", attributes...)
	if advice := advise(stage); s.people != nil && advice != "" {
		fmt.Fprintln(s.people, advice)
	}
	writeTerminationMessage(s.config.TerminationMessagePath, stage.String()+": "+s.failure.Error(), s.log)
	return stage.ExitCode()
}

// advise says what to do next after a failure of a stage; "" when there is nothing to be said for all of them.
func advise(stage enroll.Stage) string {
	switch stage {
	case enroll.StageClientConfiguration, enroll.StageCSRConfiguration:
		return "To do: set the variables as the lines above say, and try them with certfetcher check, which requests " +
			"nothing. certfetcher help run describes all variables."
	case enroll.StageTLSConfiguration:
		return "To do: repair what the lines above say, and try it with certfetcher check, which requests nothing."
	case enroll.StageCertService, enroll.StageConnection, enroll.StageVerification:
		return "To do: run certfetcher doctor, which checks each step without requesting a certificate."
	case enroll.StageFile:
		return "To do: run certfetcher doctor, which checks whether the directory can be written to."
	case enroll.StageOther:
		return ""
	}
	return "To do: look this up in " + program.Documentation + "operations.md"
}

// rescue, deferred, turns a panic into its exit code. Go's
// own for it is 2, which has a meaning here.
func rescue(stderr io.Writer, code *int) {
	if v := recover(); v != nil {
		settings, _ := loadConfig()
		log, reason := settings.Log.Logger(stderr), fmt.Sprintf("panic: %v", v)
		*code = enroll.StageOther.ExitCode()
		log.Error("certfetcher failed", "error", reason, "stage", enroll.StageOther.String(),
			"exit_code", *code, "stack", string(debug.Stack()))
		writeTerminationMessage(settings.TerminationMessagePath, enroll.StageOther.String()+": "+reason, log)
	}
}

// writeTerminationMessage tells Kubernetes why the container ended; an empty path is nowhere.
func writeTerminationMessage(path, message string, log *slog.Logger) {
	if path == "" {
		return
	}
	if err := files.Write(path, []byte(oneLine(message)), 0o644); err != nil {
		log.Warn("the termination message could not be written", "error", err.Error())
	}
}

// oneLine is a text on one line of at most 4096 bytes, which is all that Kubernetes keeps.
func oneLine(message string) string {
	text := strings.Join(strings.Fields(message), " ")
	if len(text) > 4095 {
		text = text[:4095]
		for !utf8.ValidString(text) {
			text = text[:len(text)-1]
		}
	}
	return text + "\n"
}

// endMost is how long a signal leaves for what is under way to end by itself: a publication takes
// milliseconds, and a sidecar ends all its parts in EndGrace.
const endMost = sidecar.EndGrace + 100*time.Millisecond

// errInterrupted is the failure of a run that a signal ended.
var errInterrupted = errors.New("interrupted by a signal")

// loaded is what the run works with, as soon as that is read, for who has to report in its place.
var loaded atomic.Pointer[setup]

// runUntilSignal does the work and returns its exit code. When ctx ends, the work has endMost to
// end as well. What then goes on is left to the end of the process, which a volume survives at any
// moment: it may be at something that knows no ctx, such as making a large key, opening a store
// whose password is hashed millions of times, or a slow disk.
func runUntilSignal(ctx context.Context, stderr io.Writer, work func() int) int {
	ended := make(chan int, 1)
	go func() {
		stack.Grow()
		ended <- work()
	}()
	select {
	case code := <-ended:
		return code
	case <-ctx.Done():
	}
	select {
	case code := <-ended:
		return code
	case <-time.After(endMost):
		return reportInterruption(stderr)
	}
}

func reportInterruption(stderr io.Writer) int {
	s := setup{config: &config.Fetcher{TerminationMessagePath: config.TerminationMessagePath()}}
	if now := loaded.Load(); now != nil {
		s = *now
	} else {
		s.log = s.config.Log.Logger(stderr)
	}
	s.failure = &enroll.Error{Stage: enroll.StageOther, Err: errInterrupted}
	return report(s)
}

// loadConfig reads the configuration, with the faults that only show when its parts are held
// together. They are of the first part in the contract's order.
func loadConfig() (*config.Fetcher, config.Faults) {
	cfg, err := config.Load()
	faults, _ := err.(config.Faults)
	for _, m := range program.FindMisspelt(knownVariables()) {
		cfg.Warnings = append(cfg.Warnings, config.Fault{Variable: m.Name, Problem: m.Problem()})
	}
	return cfg, append(replacedInputs(cfg), faults...)
}

// knownVariables are those of all commands: one environment may be for several of them.
func knownVariables() []string {
	return slices.Concat(program.VariableNames(config.Variables), truststore.Names(), []string{"APP_UID", "APP_GID"})
}

// replacedInputs refuses an output directory in which a
// publication would take away what the next run needs.
func replacedInputs(cfg *config.Fetcher) (faults config.Faults) {
	for _, variable := range slices.Sorted(maps.Keys(cfg.Inputs)) {
		if path := cfg.Inputs[variable]; output.Replaces(cfg.Output.Dir, path) {
			faults = append(faults, config.NewFault("OUTPUT_PATH", fmt.Sprintf(
				"has %q, where a publication replaces or removes the file of %s, %q: want a directory of its own",
				cfg.Output.Dir, variable, path)))
		}
	}
	return faults
}

// loadMerge reads the post-processor's variables, if there are any; nil when there are none, or
// faults. A file that the sidecar publishes cannot be changed by merging as well: the one would
// put back what the other did.
func loadMerge(outputDir string) (*truststore.Config, config.Faults) {
	if !truststore.Wanted() {
		return nil, nil
	}
	var faults config.Faults
	add := func(variable, problem string) {
		faults = append(faults, config.Fault{Stage: enroll.StageClientConfiguration,
			Variable: variable, Problem: problem})
	}
	cfg, err := truststore.Load()
	if found, ok := errors.AsType[truststore.Faults](err); ok {
		for _, fault := range found {
			add(fault.Variable, fault.Problem)
		}
	}
	check := func(variable, path string) {
		if files.Within(outputDir, path) {
			add(variable,
				fmt.Sprintf(
					"has %q, which would be changed by merging, and put back by the sidecar, "+
						"which publishes what is in OUTPUT_PATH; want a file elsewhere", path))
		}
	}
	if len(cfg.Truststores) > 1 {
		check("TRUSTSTORES_PATHS", cfg.Truststores[0].Path)
	}
	for _, c := range cfg.Keystores {
		check("KEYSTORE_DESTINATION_PATHS", c.Destination)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return &cfg, nil
}
