package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/token"
)

// variables are all that the program reads.
var variables = []program.Variable{
	{Name: "HTTPS_PORT", Default: "8443",
		Rule: "a port number, 0 for a free one",
		Help: "port of the REST API, on all addresses"},
	{Name: "KEYSTORE_PATH", Default: "/etc/onap/oom/certservice/certs/certServiceServer-keystore.jks",
		Rule: "the path of a JKS, PKCS#12 or PEM file",
		Help: "the service's own certificate and key; read again when it changes"},
	{Name: "KEYSTORE_PASSWORD", Default: "secret", Secret: true,
		Rule: "the password of KEYSTORE_PATH",
		Help: "password of that file; not needed for PEM with a plain key"},
	{Name: "KEYSTORE_KEY_PATH",
		Rule: "the path of a PEM private key",
		Help: "private key, when KEYSTORE_PATH is PEM and holds certificates only"},
	{Name: "TRUSTSTORE_PATH", Default: "/etc/onap/oom/certservice/certs/truststore.jks",
		Rule: "the path of a JKS, PKCS#12 or PEM file",
		Help: "CAs that client certificates must chain to; read again when it changes"},
	{Name: "TRUSTSTORE_PASSWORD", Default: "secret", Secret: true,
		Rule: "the password of TRUSTSTORE_PATH",
		Help: "password of that file; not needed for PEM"},
	{Name: "CLIENT_AUTH", Default: "answer",
		Rule: "answer or handshake",
		Help: "how a missing or untrusted client certificate is refused: with status 401, or in " +
			"the TLS handshake as the ONAP server does"},
	{Name: "CLIENT_CREDENTIALS", Default: "certificate",
		Rule: "certificate, token or any",
		Help: "what a client shows who it is with: a certificate, a token of a Kubernetes service " +
			"account, or either; with both, both must be valid, and the certificate counts"},
	{Name: "CLIENT_CRL_PATH",
		Rule: "paths of files with CRLs, PEM or DER, or of directories of such files, separated by :",
		Help: "CRLs that client certificates must not be in; read again when they change"},
	{Name: "CLIENT_CRL_PROBLEM", Default: "refuse",
		Rule: "refuse or warn",
		Help: "what to do with client certificates whose issuer has no CRL, or an expired one, in " +
			"CLIENT_CRL_PATH"},
	{Name: "TOKEN_ISSUER",
		Rule: "the issuer of the tokens, such as https://kubernetes.default.svc.cluster.local",
		Help: "whose service account tokens count; it must be equal to the claim iss"},
	{Name: "TOKEN_AUDIENCE",
		Rule: "a text such as certservice",
		Help: "audience that tokens must be for; a projected token says it in its volume"},
	{Name: "TOKEN_JWKS_PATH",
		Rule: "the path of a JSON Web Key Set",
		Help: "keys of the issuer, read again when the file changes; when empty, they are found by " +
			"discovery at TOKEN_ISSUER"},
	{Name: "TOKEN_ISSUER_CA",
		Rule: "the path of a PEM file",
		Help: "CAs that the issuer's TLS certificate must chain to, for discovery; when empty those " +
			"of the cluster that the service runs in, else the system's"},
	{Name: "TOKEN_ALLOW_UNBOUND", Default: "false",
		Rule: "true or false",
		Help: "whether tokens count that are not bound to a pod"},
	{Name: "POLICY_PATH",
		Rule: "the path of a policy file",
		Help: "who may ask for what; read again when it changes, on SIGHUP and on GET /reload. " +
			"When empty, every client may ask for every name"},
	{Name: "ADMIN_CLIENTS",
		Rule: "subjects after RFC 4514, separated by ;",
		Help: "clients that may ask for /reload where there is no policy, beside the service itself"},
	{Name: "CMP_SERVERS_PATH", Default: "/etc/onap/oom/certservice/cmpServers.json",
		Rule: "the path of a cmpServers.json",
		Help: "the certification authorities; read again when it changes, on SIGHUP and on GET " +
			"/reload"},
	{Name: "RESPONSE_TRUST", Default: "anchored",
		Rule: "anchored or onap",
		Help: "for CMP servers with neither trustAnchors nor responseTrust: refuse signed " +
			"answers, or trust them as the ONAP server did, which lets an attacker on the " +
			"path to the CA issue certificates"},
	{Name: "METRICS_ADDR",
		Rule: "host:port or :port",
		Help: "plain HTTP address for /metrics, the probes and pages for people, which need no client " +
			"certificate there; closed when empty"},
	{Name: "STATUS_PAGE", Default: "true",
		Rule: "true or false",
		Help: "whether / and /status at METRICS_ADDR show the CAs with their URLs and last errors, the " +
			"service's certificate, and the last requests"},
	{Name: "MAX_IN_FLIGHT", Default: "256",
		Rule: "a number from 1",
		Help: "enrolments and updates in progress at the CAs at the same time; others wait, see " +
			"MAX_QUEUED. Half of them are reserved for the CAs in equal parts"},
	{Name: "MAX_IN_FLIGHT_PER_CLIENT",
		Rule: "a number from 1, or nothing",
		Help: "enrolments and updates of one client, by its certificate and address; a quarter " +
			"of MAX_IN_FLIGHT when empty"},
	{Name: "MAX_QUEUED",
		Rule: "a number from 0, or nothing",
		Help: "enrolments and updates that wait for their CA, a quarter of them of one client; beyond it, " +
			"and where the answer would come too late, it is 503 with Retry-After. A quarter of the " +
			"connections when empty; with 0 none waits"},
	{Name: "MAX_RSA_BITS", Default: "4096",
		Rule: "a number from 2048 to 8192",
		Help: "largest RSA key in a request, the old certificate's included; the answer to " +
			"larger ones is 400, as they are costly to compute with"},
	{Name: "MAX_CONNECTIONS",
		Rule: "a number from 16",
		Help: "connections to the API at the same time, a third of them for clients without a " +
			"trusted certificate; derived from the memory limit when empty"},
	{Name: "REQUEST_TIMEOUT", Default: "60s",
		Rule: "a duration such as 30s, more than 0",
		Help: "time for one request in total, the CMP server's part included"},
	{Name: "READ_HEADER_TIMEOUT", Default: "10s",
		Rule: "a duration such as 10s, more than 0",
		Help: "time for a client to send its headers"},
	{Name: "IDLE_TIMEOUT", Default: "2m",
		Rule: "a duration such as 2m, more than 0",
		Help: "how long a connection is kept without a request"},
	{Name: "SHUTDOWN_TIMEOUT", Default: "25s",
		Rule: "a duration such as 25s, more than 0",
		Help: "time to finish the requests in progress when the service is stopped"},
	{Name: "LOG_LEVEL", Default: "info",
		Rule: "debug, info, warn or error",
		Help: "least severe level that is logged"},
	{Name: "LOG_FORMAT", Default: "auto",
		Rule: "auto, json or text",
		Help: "format of the log on standard error; auto is lines for people on a terminal, and " +
			"JSON elsewhere"},
}

// settings are the environment's values, checked.
type settings struct {
	httpsPort                                                 int
	files                                                     mtls.Files
	handshakeAuth                                             bool
	crls                                                      certservice.RevocationsConfig
	cmpServersPath, responseTrust, metricsAddr                string
	noStatus                                                  bool
	maxInFlight, maxPerClient, maxRSABits, maxConnections     int
	maxQueued                                                 int // -1: derived from the connections
	requestTimeout, readHeaderTimeout, idleTimeout, graceTime time.Duration
	credentials                                               certservice.Credentials
	tokens                                                    token.Settings // where tokens count
	policyPath                                                string
	admins                                                    [][]byte // DER Names
	warnings                                                  []program.Fault
	log                                                       program.LogSettings
}

// loadSettings reads the environment and returns all its faults; the log settings are usable even
// then. An empty variable counts as unset.
func loadSettings() (settings, []program.Fault) {
	r := program.ReadEnvironment(variables)
	s := settings{
		files: mtls.Files{
			KeystorePath: r.Value("KEYSTORE_PATH"), KeystoreKeyPath: r.Value("KEYSTORE_KEY_PATH"),
			KeystorePassword:   r.Value("KEYSTORE_PASSWORD"),
			TruststorePath:     r.Value("TRUSTSTORE_PATH"),
			TruststorePassword: r.Value("TRUSTSTORE_PASSWORD"), Server: true,
			KeystorePasswordFile:   r.SecretFile("KEYSTORE_PASSWORD"),
			TruststorePasswordFile: r.SecretFile("TRUSTSTORE_PASSWORD"),
		},
		httpsPort:     r.Number("HTTPS_PORT", 0, 65535),
		handshakeAuth: r.Choice("CLIENT_AUTH", "answer", "handshake") == "handshake",
		crls: certservice.RevocationsConfig{
			Paths:    r.Value("CLIENT_CRL_PATH"),
			WarnOnly: r.Choice("CLIENT_CRL_PROBLEM", "refuse", "warn") == "warn",
		},
		cmpServersPath:    r.Value("CMP_SERVERS_PATH"),
		responseTrust:     r.Choice("RESPONSE_TRUST", certservice.TrustAnchored, certservice.TrustONAP),
		metricsAddr:       r.Value("METRICS_ADDR"),
		noStatus:          !r.Bool("STATUS_PAGE"),
		maxInFlight:       r.Number("MAX_IN_FLIGHT", 1, 1<<30),
		maxRSABits:        r.Number("MAX_RSA_BITS", certservice.LeastMaxRSABits, certservice.MostMaxRSABits),
		requestTimeout:    r.Duration("REQUEST_TIMEOUT", 1),
		readHeaderTimeout: r.Duration("READ_HEADER_TIMEOUT", 1),
		idleTimeout:       r.Duration("IDLE_TIMEOUT", 1),
		graceTime:         r.Duration("SHUTDOWN_TIMEOUT", 1),
		log:               r.Log(),
	}
	readClients(r, &s)
	if s.crls.Paths != "" && strings.Trim(s.crls.Paths, ":") == "" {
		r.Reject("CLIENT_CRL_PATH", "")
	}
	if r.Value("MAX_IN_FLIGHT_PER_CLIENT") != "" {
		s.maxPerClient = r.Number("MAX_IN_FLIGHT_PER_CLIENT", 1, 1<<30)
	}
	s.maxQueued = -1
	if r.Value("MAX_QUEUED") != "" {
		s.maxQueued = r.Number("MAX_QUEUED", 0, 1<<30)
	}
	if r.Value("MAX_CONNECTIONS") != "" {
		s.maxConnections = r.Number("MAX_CONNECTIONS", certservice.LeastConnections, 1<<20)
	}
	if s.metricsAddr != "" {
		_, port, err := net.SplitHostPort(s.metricsAddr)
		if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 0 || n > 65535 {
			r.Reject("METRICS_ADDR", "")
		}
	}
	s.warnings = r.Warnings()
	return s, r.Faults()
}

// readClients reads who may ask for what, and what clients show.
func readClients(r *program.Reader, s *settings) {
	s.credentials = certservice.Credentials(r.Choice("CLIENT_CREDENTIALS", string(certservice.CertificateCredential),
		string(certservice.TokenCredential), string(certservice.AnyCredential)))
	s.policyPath = r.Value("POLICY_PATH")
	s.tokens = token.Settings{Issuer: r.Value("TOKEN_ISSUER"), Audience: r.Value("TOKEN_AUDIENCE"),
		JWKSPath: r.Value("TOKEN_JWKS_PATH"), IssuerCA: r.Value("TOKEN_ISSUER_CA"),
		AllowUnbound: r.Bool("TOKEN_ALLOW_UNBOUND")}
	for _, subject := range splitSubjects(r.Value("ADMIN_CLIENTS")) {
		name, err := cmp.ParseDN(subject)
		if err != nil {
			r.Reject("ADMIN_CLIENTS", err.Error())
		}
		s.admins = append(s.admins, name)
	}
	if s.policyPath != "" && len(s.admins) > 0 {
		r.Warn("ADMIN_CLIENTS", "has no effect with POLICY_PATH: add a rule there with the operation reload")
	}
	if s.credentials == certservice.TokenCredential { // no client shows a certificate
		s.files.Partial, s.files.TruststorePath = true, ""
	}
	switch s.credentials {
	case certservice.TokenCredential, certservice.AnyCredential:
		for _, name := range []string{"TOKEN_ISSUER", "TOKEN_AUDIENCE"} {
			if r.Value(name) == "" {
				r.Add(name, fmt.Sprintf("is not set, and CLIENT_CREDENTIALS is %s, want %s", s.credentials,
					r.Rule(name)))
			}
		}
		if s.handshakeAuth {
			r.Add("CLIENT_AUTH", fmt.Sprintf("is handshake, and CLIENT_CREDENTIALS is %s, want answer: a client with "+
				"a token shows no certificate in the handshake", s.credentials))
		}
	case certservice.CertificateCredential:
		for _, name := range []string{"TOKEN_ISSUER", "TOKEN_AUDIENCE", "TOKEN_JWKS_PATH", "TOKEN_ISSUER_CA"} {
			if r.Value(name) != "" {
				r.Warn(name, "has no effect with CLIENT_CREDENTIALS=certificate: set token or any there")
			}
		}
	}
}

// splitSubjects takes a list apart at semicolons that are neither escaped nor quoted (RFC 4514, 2.4).
func splitSubjects(list string) (subjects []string) {
	var subject strings.Builder
	escaped, quoted := false, false
	for _, c := range list {
		if c == ';' && !escaped && !quoted {
			subjects = append(subjects, subject.String())
			subject.Reset()
			continue
		}
		quoted = quoted != (c == '"' && !escaped)
		escaped = c == '\\' && !escaped
		subject.WriteRune(c)
	}
	if strings.TrimSpace(subject.String()) != "" {
		subjects = append(subjects, subject.String())
	}
	return subjects
}
