package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/token"
)

const checkUsage = `Usage: certservice token check --token FILE

It reads the keys of TOKEN_ISSUER as the service does, and says whether the service would accept the token in the file:
whose it is, for which audience and how long, and what is wrong with it. The environment is that of the service.
Exit codes: 0 accepted; 3 refused; 1 bad input, or the keys could not be read.
`

// runToken is the subcommand token.
func runToken(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "check" {
		fmt.Fprint(stderr, checkUsage)
		return exitFailed
	}
	set := flag.NewFlagSet("token check", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	path := set.String("token", "", "")
	err := set.Parse(args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, checkUsage)
		return exitCode(stderr, err)
	case err == nil && (*path == "" || set.NArg() > 0):
		err = errors.New("want --token with the path of a file, and nothing else")
	}
	accepted := false
	if err == nil {
		accepted, err = checkToken(*path, stdout)
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "certservice token check: %v\n", err)
		return exitFailed
	case !accepted:
		return exitRefused
	}
	return exitOK
}

func checkToken(path string, stdout io.Writer) (accepted bool, err error) {
	data, err := readInput("--token", path)
	if err != nil {
		return false, err
	}
	text := strings.TrimSpace(string(data))
	s, faults := loadSettings()
	if len(faults) > 0 {
		return false, fmt.Errorf("the environment has a fault: %w", faults[0])
	}
	if s.credentials == certservice.CertificateCredential {
		return false, errors.New("CLIENT_CREDENTIALS is certificate: the service accepts no token, want token or any")
	}
	verifier, err := token.New(s.tokens)
	if err != nil {
		return false, err
	}
	keys, warnings, err := verifier.Check()
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		fmt.Fprintf(stdout, "key       %s\n", strings.TrimPrefix(key, "the key "))
	}
	for _, warning := range warnings {
		fmt.Fprintf(stdout, "key       not used: %s\n", warning)
	}
	if claims, audiences, err := token.Decode(text); err == nil {
		describeToken(stdout, claims, audiences, time.Now())
	}
	if err := verifier.Reload("token check"); err != nil {
		return false, err
	}
	if _, err := verifier.Verify(text); err != nil {
		word := "refused"
		if refused, ok := errors.AsType[*token.Error](err); ok {
			word += " (" + string(refused.Reason) + ")"
		}
		_, err = fmt.Fprintf(stdout, "%s: %v\n", word, err)
		return false, err
	}
	_, err = fmt.Fprintln(stdout, "accepted")
	return true, err
}

// describeToken says what the token says, whether or not it is true.
func describeToken(stdout io.Writer, c token.Claims, audiences []string, now time.Time) {
	fmt.Fprintf(stdout, "issuer    %s\n", pki.OneLine(c.Issuer, 200))
	fmt.Fprintf(stdout, "audience  %s\n", pki.OneLine(strings.Join(audiences, ", "), 200))
	pod := "bound to no pod"
	if c.Pod != "" {
		pod = "pod " + pki.OneLine(c.Pod, 200)
	}
	fmt.Fprintf(stdout, "account   %s/%s, %s\n", pki.OneLine(c.Namespace, 100), pki.OneLine(c.ServiceAccount, 200), pod)
	fmt.Fprintf(stdout, "valid     from %s to %s; the clock here says %s\n", pki.Stamp(c.IssuedAt),
		pki.Stamp(c.Expires), pki.Stamp(now))
}
