// Package doctor checks a certservice without asking any CA for a certificate: its variables and
// files, its own certificate, its ports and limits, and the way to each CMP server, with what that
// makes of a general message.
//
// It issues nothing, changes nothing and leaves nothing behind. It may run before the service and
// beside it. It shows no secret.
package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/token"
)

// DefaultNetworkTimeout bounds each step that uses the network: a CA takes longer than a web server.
const DefaultNetworkTimeout = 10 * time.Second

// exitFailed is the exit code of each failure.
const exitFailed = 1

// Options say what is checked. What depends on a variable with a fault is skipped.
type Options struct {
	Faults, Warnings []program.Fault // of the environment

	Files          mtls.Files
	Credentials    certservice.Credentials
	ServersPath    string // cmpServers.json
	ResponseTrust  string // of CAs that name none
	PolicyPath     string // empty: none
	Tokens         token.Settings
	CRLs           certservice.RevocationsConfig
	HTTPSPort      int
	MetricsAddress string // empty: none
	Connections    int    // 0: as many as memory and files allow

	UserAgent      string           // empty: "certservice"
	NetworkTimeout time.Duration    // 0: DefaultNetworkTimeout
	Now            func() time.Time // nil: time.Now
	Dialer         *net.Dialer      // for the steps to a CA; nil: one without settings
}

// The names of the checks that certfetcher's doctor does not have.
const (
	checkVariables = "variables"
	checkNames     = "service names"
	checkPolicy    = "policy"
	checkTokens    = "token keys"
	checkCRLs      = "crls"
	checkHTTPS     = "https port"
	checkMetrics   = "metrics address"
	checkFiles     = "open files"
	checkMemory    = "memory"
	checkServers   = "cmp servers"

	checkSigner     = "signing certificate"
	checkIdentity   = "tls identity"
	checkCredential = "credential"
)

// Expected says what each check expects, as docs/checks.md does.
var Expected = map[string]string{
	checkVariables:    "every variable has a usable value",
	checks.Keystore:   "KEYSTORE_PATH holds a private key and its certificate, and only certservice can read it",
	"service chain":   "each certificate in KEYSTORE_PATH is signed by the next one",
	"service expiry":  "the service's certificate and its chain are valid now, and for some time",
	"service usage":   "the service's certificate may be used for serverAuth",
	checkNames:        "the service's certificate has the host name oom-cert-service",
	checks.Truststore: "TRUSTSTORE_PATH holds certificates that can be read and have not expired",
	checkPolicy:       "there is a policy, it can be used, and it is enforced",
	checkTokens:       "the keys of TOKEN_ISSUER can be read and used",
	checkCRLs:         "the CRLs in CLIENT_CRL_PATH can be read and are valid for some time",
	checkHTTPS:        "HTTPS_PORT is free, or served by this service",
	checkMetrics:      "METRICS_ADDR is free, or served by a certservice",
	checkFiles:        "as many files may be open as connections are allowed",
	checkMemory:       "the memory suffices for the connections that are allowed",
	checkServers:      "cmpServers.json can be read, and each of its entries used",

	checks.Proxy:      "no proxy is needed to reach the CMP server",
	checks.DNS:        "the host name resolves within a second",
	checks.TCP:        "every address of the host accepts a connection",
	checks.TLS:        "the server speaks TLS 1.2 or later",
	checks.Server:     "the server's certificate is valid now, and for some time",
	checks.Trust:      "the server's certificate chains to a CA in tlsTrust, or to one of the system's",
	checks.ServerName: "the server's certificate has the host name of the URL",
	checks.Accepted:   "the server accepts the certificate in tlsIdentity",
	checkIdentity:     "the certificate in tlsIdentity is valid now, and for some time",
	checkSigner:       "the certificate that signs requests is valid now, and for some time",
	checks.CMP:        "the CMP server answers a general message",
	checkCredential:   "the CMP server accepts the secret, or the signing certificate",
	checks.Anchors:    "trustAnchors verify the server's answers, and are valid now",
	checks.Clock:      "the clocks are less than a minute apart",
}

// Run makes all checks. Those of several CAs are made at the same time. When ctx ends, those that
// use the network fail at once.
func Run(ctx context.Context, o Options) checks.Report {
	d := &doctor{Options: o, List: checks.List{Expected: Expected}}
	d.NetworkTimeout = cmp.Or(d.NetworkTimeout, DefaultNetworkTimeout)
	d.UserAgent = cmp.Or(d.UserAgent, "certservice")
	d.Dialer = cmp.Or(d.Dialer, &net.Dialer{})
	if d.Now == nil {
		d.Now = time.Now
	}
	d.variables()
	own := d.identity()
	d.policy()
	d.tokens(ctx)
	d.crls()
	d.ports(ctx, own)
	d.limits()
	d.authorities(ctx, d.servers())
	return checks.Report{Checks: d.Checks}
}

type doctor struct {
	Options
	checks.List
}

func (d *doctor) fail(name, found, advice string) { d.Fail(exitFailed, name, found, advice) }

// skipFaulty skips a check where one of its variables has a fault, and says whether it did.
func (d *doctor) skipFaulty(name string, variables ...string) bool {
	for _, fault := range d.Faults {
		if slices.Contains(variables, strings.TrimSuffix(fault.Variable, "_FILE")) {
			d.Skip(name, fault.Variable+" has a fault")
			return true
		}
	}
	return false
}

func (d *doctor) variables() {
	const advice = "correct the environment of this container; certservice --help lists the rules"
	for _, warning := range d.Warnings {
		d.Warn(checkVariables, warning.Error(), advice)
	}
	for _, fault := range d.Faults {
		d.fail(checkVariables, fault.Error(), advice)
	}
	if len(d.Warnings)+len(d.Faults) == 0 {
		d.OK(checkVariables, "every variable is usable")
	}
}

// identity checks what clients are shown; nil: it cannot be used.
func (d *doctor) identity() *x509.Certificate {
	if d.skipFaulty(checks.Keystore, "KEYSTORE_PATH", "KEYSTORE_PASSWORD", "KEYSTORE_KEY_PATH", "TRUSTSTORE_PATH",
		"TRUSTSTORE_PASSWORD") {
		d.SkipRest([]string{"service chain", "service expiry", "service usage", checks.Truststore, checkNames},
			"because the keystore was not looked at")
		return nil
	}
	own := checks.Identity{List: &d.List, Files: d.Files, Now: d.Now, ExitCode: exitFailed, Program: "certservice",
		Peer: "clients", Side: "service"}
	identity := own.Check()
	if identity == nil {
		d.Skip(checkNames, "because the keystore or the truststore cannot be used")
		return nil
	}
	leaf := identity.Certificate.Leaf
	d.names(leaf)
	return leaf
}

// serviceName is the host name in the clients' configuration, since ONAP.
const serviceName = "oom-cert-service"

func (d *doctor) names(leaf *x509.Certificate) {
	found := "the certificate has " + checks.Some(pki.Names(leaf))
	switch {
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		d.fail(checkNames, "the certificate has no subject alternative name that is a host name or an address",
			"have one issued with DNS:"+serviceName+", or the host name in the clients' REQUEST_URL")
	case leaf.VerifyHostname(serviceName) != nil:
		d.Warn(checkNames, found+", and not "+serviceName,
			"clients that ask for https://"+serviceName+" refuse it: have one issued with that name, if there are any")
	default:
		d.OK(checkNames, "%s", found)
	}
}

func (d *doctor) policy() {
	if d.PolicyPath == "" {
		d.Warn(checkPolicy, "there is none: every client that is authenticated may ask for every name",
			"set POLICY_PATH")
		return
	}
	data, _, err := files.Read(d.PolicyPath, certservice.MaxConfigBytes)
	if len(data) > certservice.MaxConfigBytes {
		err = fmt.Errorf("it is larger than %d bytes", certservice.MaxConfigBytes)
	}
	if err != nil {
		d.fail(checkPolicy, fmt.Sprintf("POLICY_PATH %q %v", d.PolicyPath, files.Explain(d.PolicyPath, err)),
			"correct the variable, or the volume that it leads to")
		return
	}
	rules, err := policy.Parse(data)
	switch {
	case err != nil:
		d.fail(checkPolicy, fmt.Sprintf("POLICY_PATH %q: %v", d.PolicyPath, err),
			"correct the file; certservice policy check tells each fault with its line")
	case rules.WarnOnly:
		d.Warn(checkPolicy, fmt.Sprintf("%q only warns: names, keys, usages and rates are not enforced",
			d.PolicyPath), "set mode: enforce when the log has no warnings of it any more")
	default:
		d.OK(checkPolicy, "%q can be used; rules: %d", d.PolicyPath, len(rules.Rules))
	}
}

func (d *doctor) tokens(ctx context.Context) {
	if d.Credentials == certservice.CertificateCredential || d.skipFaulty(checkTokens, "TOKEN_ISSUER", "TOKEN_AUDIENCE",
		"TOKEN_JWKS_PATH", "TOKEN_ISSUER_CA", "CLIENT_CREDENTIALS") {
		return
	}
	const advice = "check TOKEN_ISSUER, TOKEN_ISSUER_CA and the network policies on the way, or give TOKEN_JWKS_PATH"
	var keys, warnings []string
	var err error
	read := make(chan struct{})
	go func() { // which takes up to 10 seconds
		defer close(read)
		var verifier *token.Verifier
		if verifier, err = token.New(d.Tokens); err == nil {
			keys, warnings, err = verifier.Check()
		}
	}()
	select {
	case <-read:
	case <-ctx.Done():
		d.Skip(checkTokens, "because a signal came")
		return
	}
	switch {
	case err != nil:
		d.fail(checkTokens, err.Error(), advice)
	case len(warnings) > 0:
		d.Warn(checkTokens, checks.Some(keys)+"; not used: "+checks.Some(warnings),
			"replace those keys at the issuer if they sign tokens")
	default:
		d.OK(checkTokens, "%s", checks.Some(keys))
	}
}

func (d *doctor) crls() {
	if d.CRLs.Paths == "" || d.skipFaulty(checkCRLs, "CLIENT_CRL_PATH", "CLIENT_CRL_PROBLEM") {
		return
	}
	const advice = "replace the files in CLIENT_CRL_PATH by the authorities' current CRLs"
	report := certservice.NewRevocations(d.CRLs).Examine()
	found := fmt.Sprintf("%d in use: %s", len(report.Issuers), checks.Some(report.Issuers))
	switch {
	case len(report.Faults) > 0:
		d.fail(checkCRLs, checks.Some(report.Faults), advice)
	case len(report.Issuers) == 0:
		d.fail(checkCRLs, "there is none that can be used; "+checks.Some(report.Unused), advice)
	case len(report.Expired) > 0 && d.CRLs.WarnOnly:
		d.Warn(checkCRLs, "expired: "+checks.Some(report.Expired), advice)
	case len(report.Expired) > 0:
		d.fail(checkCRLs, "expired: "+checks.Some(report.Expired)+"; client certificates of these authorities are "+
			"refused", advice)
	case len(report.Soon) > 0:
		d.Warn(checkCRLs, "they expire soon: "+checks.Some(report.Soon), advice)
	case len(report.Unused) > 0:
		d.Warn(checkCRLs, found+"; not used: "+checks.Some(report.Unused), advice)
	default:
		d.OK(checkCRLs, "%s", found)
	}
}

// limits checks what the service may take from the machine.
func (d *doctor) limits() {
	if d.skipFaulty(checkFiles, "MAX_CONNECTIONS") {
		d.Skip(checkMemory, "MAX_CONNECTIONS has a fault")
		return
	}
	connections, may := certservice.NewCapacity(d.Connections).Connections(), certservice.OpenFileLimit()
	if need := certservice.FilesFor(connections); may < need {
		d.Warn(checkFiles, fmt.Sprintf("%d may be open, and %d connections need %d", may, connections, need),
			"raise RLIMIT_NOFILE (ulimit -n), or lower MAX_CONNECTIONS")
	} else {
		d.OK(checkFiles, "%d may be open, which suffices for %d connections", may, connections)
	}
	limit, need := certservice.MemoryLimit(), certservice.MemoryFor(connections)
	switch {
	case limit == 0:
		d.OK(checkMemory, "nothing limits it; %d connections take up to %d MiB", connections, need>>20)
	case limit < need:
		d.Warn(checkMemory, fmt.Sprintf("the limit is %d MiB, and %d connections take up to %d MiB", limit>>20,
			connections, need>>20), "raise the memory limit of the container, or lower MAX_CONNECTIONS")
	default:
		d.OK(checkMemory, "the limit is %d MiB; %d connections take up to %d MiB", limit>>20, connections, need>>20)
	}
}

// servers reads cmpServers.json.
func (d *doctor) servers() []certservice.Server {
	if d.skipFaulty(checkServers, "CMP_SERVERS_PATH", "RESPONSE_TRUST") {
		return nil
	}
	const advice = "correct the file, or those that it names; docs/certservice.md has its fields"
	all, err := certservice.ReadServers(d.ServersPath, d.ResponseTrust)
	if err != nil && len(all.Faults) == 0 {
		d.fail(checkServers, fmt.Sprintf("CMP_SERVERS_PATH %q: %v", d.ServersPath, err), advice)
		return nil
	}
	for _, fault := range all.Faults {
		d.fail(checkServers, fault, advice)
	}
	for _, warning := range all.Warnings {
		d.Warn(checkServers, warning, advice)
	}
	if len(all.Faults)+len(all.Warnings) == 0 {
		var names []string
		for _, s := range all.Usable {
			names = append(names, s.CAName)
		}
		d.OK(checkServers, "%s", checks.Some(names))
	}
	return all.Usable
}

// atOnce is how many CAs are checked at the same time.
const atOnce = 8

func (d *doctor) authorities(ctx context.Context, servers []certservice.Server) {
	lists := make([]checks.List, len(servers))
	room := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			a := &authority{Options: &d.Options, List: checks.List{Expected: Expected, CA: s.CAName}, server: s}
			a.run(ctx)
			lists[i] = a.List
		})
	}
	all.Wait()
	for _, list := range lists {
		d.Checks = append(d.Checks, list.Checks...)
	}
}
