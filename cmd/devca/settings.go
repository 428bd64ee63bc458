package main

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/program"
)

// settings are the environment's values, checked.
type settings struct {
	addr     string
	loopback bool // only this machine can reach addr
	caFile   string
	faults   string // as given, for the log
	ca       devca.Config
	log      program.LogSettings
}

// loadSettings reads the environment, and returns everything that is wrong with it.
func loadSettings() (settings, []program.Fault) {
	r := program.ReadEnvironment(variables)
	s := settings{addr: r.Value("DEVCA_ADDR"), caFile: r.Value("DEVCA_CA_FILE"),
		faults: r.Value("DEVCA_FAULT"), log: r.Log()}
	s.loopback = listensOnLoopback(r, r.Value("DEVCA_IAK") != "")
	for _, name := range []string{"DEVCA_RV", "DEVCA_IAK"} {
		if n := len(r.Value(name)); n > 256 {
			r.Reject(name, fmt.Sprintf("%d bytes", n))
		}
	}
	s.ca.Reference, s.ca.Secret = r.Value("DEVCA_RV"), []byte(cmp.Or(r.Value("DEVCA_IAK"), devca.DefaultSecret))
	s.ca.Validity = validity(r)
	s.ca.ResponseProtection = devca.ResponseProtection(r.Choice("DEVCA_RESPONSE_PROTECTION", "mac", "signature"))
	s.ca.Approval = r.Bool("DEVCA_APPROVAL")
	if profiles := r.Value("DEVCA_CERT_PROFILES"); profiles != "" {
		s.ca.Profiles = strings.Split(profiles, ",")
	}
	s.ca.StrictKeyUsage = r.Bool("DEVCA_STRICT_KEY_USAGE")
	var err error
	if s.ca.Faults, err = devca.ParseFaults(r.Value("DEVCA_FAULT")); err != nil {
		r.Reject("DEVCA_FAULT", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return s, r.Faults()
}

// listensOnLoopback checks the address. One that other machines can reach needs a secret of its
// own, so that no one exposes a CA with a public secret on a network by mistake.
func listensOnLoopback(r *program.Reader, ownSecret bool) bool {
	host, port, err := net.SplitHostPort(r.Value("DEVCA_ADDR"))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		r.Reject("DEVCA_ADDR", "")
		return false
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	if !loopback && !ownSecret {
		r.Add("DEVCA_ADDR",
			fmt.Sprintf("has %q, which other machines can reach: set DEVCA_IAK too, because the default is public",
				r.Value("DEVCA_ADDR")))
	}
	return loopback
}

// validity reads a duration, or a number of seconds.
func validity(r *program.Reader) time.Duration {
	text := r.Value("DEVCA_VALIDITY")
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < time.Second || d > devca.MaxValidity {
		r.Reject("DEVCA_VALIDITY", program.DurationHint(text))
	}
	return d
}

// variables are all that the program reads.
var variables = []program.Variable{
	{Name: "DEVCA_ADDR", Default: "127.0.0.1:8829",
		Rule: "host:port",
		Help: "where to listen; DEVCA_IAK must be set for an address that other machines can reach"},
	{Name: "DEVCA_RV", Default: "mypassword",
		Rule: "1 to 256 bytes",
		Help: "reference value: the name of the shared secret, which requests carry as senderKID"},
	{Name: "DEVCA_IAK", Secret: true,
		Rule: "1 to 256 bytes",
		Help: "initial authentication key: the shared secret; unset, it is the mypassword of the " +
			"ONAP server's sample configuration"},
	{Name: "DEVCA_VALIDITY", Default: "1h",
		Rule: "a duration such as 1h or 90s, or a number of seconds; 1s to 365 days",
		Help: "how long certificates are valid"},
	{Name: "DEVCA_CA_FILE",
		Rule: "the path of a file in a directory that exists",
		Help: "where to write the root certificate of this run as PEM"},
	{Name: "DEVCA_RESPONSE_PROTECTION", Default: "mac",
		Rule: "mac or signature",
		Help: "how answers to requests under the shared secret are protected: with it, or by the " +
			"CA's signature as EJBCA does"},
	{Name: "DEVCA_STRICT_KEY_USAGE", Default: "false",
		Rule: "true or false",
		Help: "refuse requests for key usages that the kind of key cannot have, such as " +
			"keyEncipherment for EC keys, in place of leaving the usage out"},
	{Name: "DEVCA_APPROVAL", Default: "false",
		Rule: "true or false",
		Help: "answer requests with waiting until POST /approve, which approves those that wait then"},
	{Name: "DEVCA_CERT_PROFILES",
		Rule: "names, separated by commas",
		Help: "the certificate profiles (id-it-certProfile) that requests may name; default: any"},
	{Name: "DEVCA_FAULT",
		Rule: "any of waiting[:POLLS], rejection[:FAILINFO], unprotected-error, wrong-nonce, " +
			"wrong-key, expired, explicit-confirm, slow:DURATION, drop[:BODY], separated by " +
			"commas",
		Help: "how to misbehave"},
	{Name: "LOG_FORMAT", Default: "auto",
		Rule: "auto, json or text",
		Help: "format of the log on standard error; auto is lines for people on a terminal, and " +
			"JSON elsewhere"},
	{Name: "LOG_LEVEL", Default: "info",
		Rule: "debug, info, warn or error",
		Help: "least severe level that is logged"},
}

func writeVariables(w io.Writer) error {
	var text strings.Builder
	text.WriteString("Environment variables\n")
	if err := program.WriteUsage(&text, variables); err != nil {
		return err
	}
	text.WriteString("\n" + faultsHelp)
	_, err := io.WriteString(w, text.String())
	return err
}

const faultsHelp = `Faults, for testing clients; several may be given, separated by commas, here or in the body of
POST /faults
  waiting[:POLLS]
      answers a request with status waiting, and as many pollReqs (1) with pollRep
  rejection[:FAILINFO[+FAILINFO]]
      answers requests with status rejection, and such as badCertTemplate
  unprotected-error
      answers requests for certificates with an error message without protection
  wrong-version, wrong-time, wrong-transaction-id, wrong-nonce
      has that wrong in the header of every answer
  wrong-protection, no-protection
      spoils the protection of every answer, or leaves it out
  malformed, wrong-kind, wrong-request-id, no-certificate, two-certificates
      answers with what is not one certificate for the request
  wrong-key, wrong-subject, other-names, authority, expired, not-yet-valid, wrong-signature
      issues certificates of which that is true
  explicit-confirm
      grants no implicit confirmation: certificates must be confirmed by certConf
  slow:DURATION
      waits before every answer
  drop[:BODY]
      closes the connection instead of answering, or loses the answers to messages of one kind, such
      as certConf, after doing what they ask
`
