package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/token"
)

var tokenCheck = &program.Command{Name: "token check",
	Short: "say whether the service would accept a token",
	Long: "reads the keys of TOKEN_ISSUER as the service does, and says whether the service would accept the token " +
		"in a file: whose it is, for which audience and how long, and what is wrong with it. The environment is that " +
		"of certservice serve.",
	Flags: []program.Flag{{Name: "token", Value: "FILE", Help: "the file with the token; it has to be given"}},
	ExitCodes: []program.ExitCode{{Code: exitOK, Meaning: "accepted"},
		{Code: exitFailed, Meaning: "bad input, or the keys could not be read"}, wrongUsage,
		{Code: exitRefused, Meaning: "refused"}},
	Examples: []string{"token check --token /var/run/secrets/tokens/certservice"},
	Run:      runTokenCheck}

func runTokenCheck(c *program.Call) int {
	if c.Flag("token") == "" {
		return c.WrongUsage("--token is missing, want the path of a file")
	}
	accepted, err := checkToken(c.Flag("token"), c.Stdout)
	switch {
	case err != nil:
		fmt.Fprintf(c.Stderr, "certservice token check: %v\n", err)
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
