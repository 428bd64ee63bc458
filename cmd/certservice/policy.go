package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/token"
)

// exitRefused is the exit code of a policy check whose request is not allowed.
const exitRefused = 3

const policyUsage = `Usage: certservice policy check --policy FILE
       certservice policy check --policy FILE --client CERTIFICATE|--token FILE --ca NAME --operation OPERATION
                                [--csr FILE] [--old-cert FILE] [-o json]
       certservice policy schema    print the JSON schema of policy files

The first form says what is wrong with a policy file. The second one says what the policy decides about a request:
  --client     the client's certificate, PEM or DER
  --token      a file with the client's service account token; its signature and its times are not verified
  --ca         the caName of cmpServers.json; not for reload
  --operation  enroll, update, cmp, revoke or reload
  --csr        the request, PEM or DER, for enroll, update and cmp
  --old-cert   the certificate that an update replaces: what it has does not matter, only that it can be read
Exit codes: 0 allowed, or the file is valid; 3 refused; 1 bad input.
`

// policyFlags are those of policy check.
type policyFlags struct {
	policy, client, token, ca, operation, csr, oldCert, output string
}

// runPolicy is the subcommand policy.
func runPolicy(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "schema" {
		_, err := stdout.Write(policy.Schema())
		return exitCode(stderr, err)
	}
	if len(args) == 0 || args[0] != "check" {
		fmt.Fprint(stderr, policyUsage)
		return exitFailed
	}
	var f policyFlags
	set := flag.NewFlagSet("policy check", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for name, to := range map[string]*string{"policy": &f.policy, "client": &f.client, "token": &f.token, "ca": &f.ca,
		"operation": &f.operation, "csr": &f.csr, "old-cert": &f.oldCert, "o": &f.output} {
		set.StringVar(to, name, "", "")
	}
	err := set.Parse(args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, policyUsage)
		return exitCode(stderr, err)
	case err == nil && set.NArg() > 0:
		err = fmt.Errorf("there is no argument %q", set.Arg(0))
	}
	if err == nil {
		var code int
		if code, err = f.check(stdout); err == nil {
			return code
		}
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "certservice policy check: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return exitFailed
}

// check answers the question that the flags ask. The error is a fault of the input.
func (f *policyFlags) check(stdout io.Writer) (int, error) {
	if f.policy == "" {
		return 0, errors.New("--policy is missing, want the path of a policy file")
	}
	if f.output != "" && f.output != "json" {
		return 0, fmt.Errorf("-o is %q, want json", f.output)
	}
	data, err := readInput("--policy", f.policy)
	if err != nil {
		return 0, err
	}
	rules, err := policy.Parse(data)
	if faults, ok := errors.AsType[policy.Faults](err); ok {
		var all []error
		for _, fault := range faults {
			all = append(all, fmt.Errorf("%s:%w", f.policy, fault))
		}
		return 0, errors.Join(all...)
	}
	if *f == (policyFlags{policy: f.policy, output: f.output}) {
		return exitOK, f.printValid(stdout, rules)
	}
	trial, err := f.trial()
	if err != nil {
		return 0, err
	}
	d, err := trial.Try(rules)
	if err != nil {
		return 0, fmt.Errorf("--csr %q: %w", f.csr, err)
	}
	code := exitOK
	if !d.Allowed {
		code = exitRefused
	}
	return code, f.print(stdout, d)
}

func (f *policyFlags) printValid(stdout io.Writer, rules *policy.Policy) error {
	if f.output == "json" {
		return printJSON(stdout, map[string]any{"valid": true, "rules": len(rules.Rules), "warnOnly": rules.WarnOnly})
	}
	_, err := fmt.Fprintf(stdout, "%s is valid: %d rules\n", f.policy, len(rules.Rules))
	return err
}

func (f *policyFlags) print(stdout io.Writer, d policy.Decision) error {
	word := certservice.DecisionWord(d)
	if f.output == "json" {
		return printJSON(stdout, map[string]any{"decision": word, "rule": d.Rule, "reason": d.Reason})
	}
	text := word
	if d.Rule != "" {
		text += fmt.Sprintf(" by the rule %q", d.Rule)
	}
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	_, err := fmt.Fprintln(stdout, text)
	return err
}

func printJSON(stdout io.Writer, value any) error { return json.NewEncoder(stdout).Encode(value) }

// trial reads the request that the flags describe.
func (f *policyFlags) trial() (certservice.Trial, error) {
	t := certservice.Trial{CA: f.ca, Operation: policy.Operation(f.operation)}
	operations := policy.Operations()
	switch {
	case !slices.Contains(operations, t.Operation):
		return t, fmt.Errorf("--operation is %q, want one of %q", f.operation, operations)
	case (f.client == "") == (f.token == ""):
		return t, errors.New("want --client or --token, one of them")
	case f.ca == "" && t.Operation != policy.Reload:
		return t, errors.New("--ca is missing, want the caName of an entry in cmpServers.json")
	case f.csr == "" && t.Operation.Certifies():
		return t, fmt.Errorf("--csr is missing, want the request for %s", f.operation)
	case f.csr != "" && !t.Operation.Certifies():
		return t, fmt.Errorf("--csr has no effect with --operation %s", f.operation)
	}
	var err error
	if t.Client, err = f.readClient(); err != nil {
		return t, err
	}
	if f.oldCert != "" {
		if _, err := readCertificateFile("--old-cert", f.oldCert); err != nil {
			return t, err
		}
	}
	if f.csr != "" {
		t.CSR, err = readInput("--csr", f.csr)
	}
	return t, err
}

func (f *policyFlags) readClient() (c policy.Client, err error) {
	if f.client != "" {
		certificate, err := readCertificateFile("--client", f.client)
		return policy.Client{Certificate: certificate}, err
	}
	data, err := readInput("--token", f.token)
	if err != nil {
		return c, err
	}
	claims, _, err := token.Decode(strings.TrimSpace(string(data)))
	if err != nil {
		return c, fmt.Errorf("--token %q: %w", f.token, err)
	}
	c.Account = &policy.ServiceAccount{Namespace: claims.Namespace, Name: claims.ServiceAccount}
	return c, nil
}

// mostInput bounds the files of a check.
const mostInput = 4 << 20

func readInput(name, path string) ([]byte, error) {
	data, _, err := files.Read(path, mostInput)
	if err != nil {
		return nil, fmt.Errorf("%s %q %w", name, path, files.Explain(path, err))
	}
	if len(data) > mostInput {
		return nil, fmt.Errorf("%s %q has more than %d bytes", name, path, mostInput)
	}
	return data, nil
}

// readCertificateFile reads the first certificate of a file.
func readCertificateFile(name, path string) (*x509.Certificate, error) {
	data, err := readInput(name, path)
	if err != nil {
		return nil, err
	}
	if !pki.HasPEM(data) {
		certificate, err := pki.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s %q is neither a PEM nor a DER certificate: %w", name, path, err)
		}
		return certificate, nil
	}
	certificates, faults, err := pki.PEMCertificates(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s %q %w", name, path, err)
	case len(certificates) == 0:
		return nil, fmt.Errorf("%s %q has no certificate that can be read: %w", name, path, errors.Join(faults...))
	}
	return certificates[0], nil
}
