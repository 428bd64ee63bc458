package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/token"
)

// exitRefused is the exit code of a policy check whose request is not allowed.
const exitRefused = 3

var policyCheck = &program.Command{Name: "policy check",
	Short: "check a policy file, or what it decides about a request",
	Long:  "says what is wrong with a policy file. With further flags it says what the policy decides about a request.",
	Flags: []program.Flag{
		{Name: "policy", Value: "FILE", Help: "the policy file; it has to be given"},
		{Name: "client", Value: "FILE", Help: "the client's certificate, PEM or DER"},
		{Name: "token", Value: "FILE",
			Help: "a file with the client's service account token; its signature and its times are not verified"},
		{Name: "ca", Value: "NAME", Help: "the caName of cmpServers.json; not for reload"},
		{Name: "operation", Choices: operationNames(), Help: "what is asked for"},
		{Name: "csr", Value: "FILE", Help: "the request, PEM or DER, for enroll, update and cmp"},
		{Name: "old-cert", Value: "FILE",
			Help: "the certificate that an update replaces: what it has does not matter, only that it can be read"},
		program.OutputFlag},
	ExitCodes: []program.ExitCode{{Code: exitOK, Meaning: "allowed, or the file is valid"},
		{Code: exitFailed, Meaning: "bad input"}, wrongUsage, {Code: exitRefused, Meaning: "refused"}},
	Examples: []string{"policy check --policy policy.yaml",
		"policy check --policy new.yaml --token token --ca RA --operation enroll --csr app.csr"},
	Run: runPolicyCheck}

var policySchema = &program.Command{Name: "policy schema",
	Short: "print the JSON schema of policy files",
	Long:  "prints the JSON schema of policy files, for editors.",
	Run: func(c *program.Call) int {
		return c.Print(func(w io.Writer) error {
			_, err := w.Write(policy.Schema())
			return err
		})
	}}

func operationNames() (names []string) {
	for _, operation := range policy.Operations() {
		names = append(names, string(operation))
	}
	return names
}

// policyFlags are those of policy check.
type policyFlags struct {
	policy, client, token, ca, operation, csr, oldCert, output string
}

func runPolicyCheck(c *program.Call) int {
	f := policyFlags{policy: c.Flag("policy"), client: c.Flag("client"), token: c.Flag("token"), ca: c.Flag("ca"),
		operation: c.Flag("operation"), csr: c.Flag("csr"), oldCert: c.Flag("old-cert"), output: c.Flag("output")}
	if problem := f.problem(); problem != "" {
		return c.WrongUsage(problem)
	}
	code, err := f.check(c.Stdout)
	if err == nil {
		return code
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(c.Stderr, "certservice policy check: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return exitFailed
}

// asks says whether the flags describe a request.
func (f *policyFlags) asks() bool { return *f != (policyFlags{policy: f.policy, output: f.output}) }

// problem says what is wrong with the flags together; "" for nothing.
func (f *policyFlags) problem() string {
	operation := policy.Operation(f.operation)
	switch {
	case f.policy == "":
		return "--policy is missing, want the path of a policy file"
	case !f.asks():
		return ""
	case f.operation == "":
		return "--operation is missing, want " + strings.Join(operationNames(), ", ")
	case (f.client == "") == (f.token == ""):
		return "want --client or --token, one of them"
	case f.ca == "" && operation != policy.Reload:
		return "--ca is missing, want the caName of an entry in cmpServers.json"
	case f.csr == "" && operation.Certifies():
		return "--csr is missing, want the request for " + f.operation
	case f.csr != "" && !operation.Certifies():
		return "--csr has no effect with --operation " + f.operation
	}
	return ""
}

// check answers the question that the flags ask. The error is a fault of the input.
func (f *policyFlags) check(stdout io.Writer) (int, error) {
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
	if !f.asks() {
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
