package main

import (
	"io"
	"net"
	"strconv"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
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
		Help: "plain HTTP address for /metrics and the probes, which need no client certificate " +
			"there; closed when empty"},
	{Name: "MAX_IN_FLIGHT", Default: "256",
		Rule: "a number from 1",
		Help: "enrolments and updates at the same time; beyond it the answer is 503 with " +
			"Retry-After. Half of them are reserved for the CAs in equal parts"},
	{Name: "MAX_IN_FLIGHT_PER_CLIENT",
		Rule: "a number from 1, or nothing",
		Help: "enrolments and updates of one client, by its certificate and address; a quarter " +
			"of MAX_IN_FLIGHT when empty"},
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
	{Name: "LOG_FORMAT", Default: "json",
		Rule: "json or text",
		Help: "format of the log on standard error"},
}

// settings are the environment's values, checked.
type settings struct {
	httpsPort                                                 int
	files                                                     mtls.Files
	handshakeAuth                                             bool
	cmpServersPath, responseTrust, metricsAddr                string
	maxInFlight, maxPerClient, maxRSABits, maxConnections     int
	requestTimeout, readHeaderTimeout, idleTimeout, graceTime time.Duration
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
		httpsPort:         r.Number("HTTPS_PORT", 0, 65535),
		handshakeAuth:     r.Choice("CLIENT_AUTH", "answer", "handshake") == "handshake",
		cmpServersPath:    r.Value("CMP_SERVERS_PATH"),
		responseTrust:     r.Choice("RESPONSE_TRUST", certservice.TrustAnchored, certservice.TrustONAP),
		metricsAddr:       r.Value("METRICS_ADDR"),
		maxInFlight:       r.Number("MAX_IN_FLIGHT", 1, 1<<30),
		maxRSABits:        r.Number("MAX_RSA_BITS", certservice.LeastMaxRSABits, certservice.MostMaxRSABits),
		requestTimeout:    r.Duration("REQUEST_TIMEOUT", 1),
		readHeaderTimeout: r.Duration("READ_HEADER_TIMEOUT", 1),
		idleTimeout:       r.Duration("IDLE_TIMEOUT", 1),
		graceTime:         r.Duration("SHUTDOWN_TIMEOUT", 1),
		log:               r.Log(),
	}
	if r.Value("MAX_IN_FLIGHT_PER_CLIENT") != "" {
		s.maxPerClient = r.Number("MAX_IN_FLIGHT_PER_CLIENT", 1, 1<<30)
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
	return s, r.Faults()
}

func writeUsage(w io.Writer) error {
	_, err := io.WriteString(w, `certservice has certificate requests signed by CMPv2 servers, over REST and mutual TLS.

Usage: certservice [--check | --help | --version]
       certservice probe    exit with 0 when the service at METRICS_ADDR is ready

It is configured by environment variables:
`)
	if err == nil {
		err = program.WriteUsage(w, variables)
	}
	if err == nil {
		_, err = io.WriteString(w, `
Exit codes: 0 ended by a signal, or nothing wrong found; 1 a fault in the configuration, or serving failed;
2 wrong usage; 99 too few files may be open (RLIMIT_NOFILE).
`)
	}
	return err
}
