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

// environment has every variable as text; program.ReadEnvironment explains the tags.
type environment struct {
	HTTPSPort          string `envconfig:"HTTPS_PORT" default:"8443" rule:"a port number, 0 for a free one" desc:"port of the REST API, on all addresses"`
	KeystorePath       string `envconfig:"KEYSTORE_PATH" default:"/etc/onap/oom/certservice/certs/certServiceServer-keystore.jks" rule:"the path of a JKS, PKCS#12 or PEM file" desc:"the service's own certificate and key; read again when it changes"`
	KeystorePassword   string `envconfig:"KEYSTORE_PASSWORD" default:"secret" secret:"true" rule:"the password of KEYSTORE_PATH" desc:"password of that file; not needed for PEM with a plain key"`
	KeystoreKeyPath    string `envconfig:"KEYSTORE_KEY_PATH" rule:"the path of a PEM private key" desc:"private key, when KEYSTORE_PATH is PEM and holds certificates only"`
	TruststorePath     string `envconfig:"TRUSTSTORE_PATH" default:"/etc/onap/oom/certservice/certs/truststore.jks" rule:"the path of a JKS, PKCS#12 or PEM file" desc:"CAs that client certificates must chain to; read again when it changes"`
	TruststorePassword string `envconfig:"TRUSTSTORE_PASSWORD" default:"secret" secret:"true" rule:"the password of TRUSTSTORE_PATH" desc:"password of that file; not needed for PEM"`
	ClientAuth         string `envconfig:"CLIENT_AUTH" default:"answer" rule:"answer or handshake" desc:"how a missing or untrusted client certificate is refused: with status 401, or in the TLS handshake as the ONAP server does"`
	CMPServersPath     string `envconfig:"CMP_SERVERS_PATH" default:"/etc/onap/oom/certservice/cmpServers.json" rule:"the path of a cmpServers.json" desc:"the certification authorities; read again when it changes, on SIGHUP and on GET /reload"`
	ResponseTrust      string `envconfig:"RESPONSE_TRUST" default:"anchored" rule:"anchored or onap" desc:"for CMP servers with neither trustAnchors nor responseTrust: refuse signed answers, or trust them as the ONAP server did, which lets an attacker on the path to the CA issue certificates"`
	MetricsAddr        string `envconfig:"METRICS_ADDR" rule:"host:port or :port" desc:"plain HTTP address for /metrics and the probes, which need no client certificate there; closed when empty"`
	MaxInFlight        string `envconfig:"MAX_IN_FLIGHT" default:"256" rule:"a number from 1" desc:"enrolments and updates at the same time; beyond it the answer is 503 with Retry-After. Half of them are reserved for the CAs in equal parts"`
	MaxPerClient       string `envconfig:"MAX_IN_FLIGHT_PER_CLIENT" rule:"a number from 1, or nothing" desc:"enrolments and updates of one client, by its certificate and address; a quarter of MAX_IN_FLIGHT when empty"`
	MaxRSABits         string `envconfig:"MAX_RSA_BITS" default:"4096" rule:"a number from 2048 to 8192" desc:"largest RSA key in a request, the old certificate's included; the answer to larger ones is 400, as they are costly to compute with"`
	MaxConnections     string `envconfig:"MAX_CONNECTIONS" rule:"a number from 16" desc:"connections to the API at the same time, a third of them for clients without a trusted certificate; derived from the memory limit when empty"`
	RequestTimeout     string `envconfig:"REQUEST_TIMEOUT" default:"60s" rule:"a duration such as 30s, more than 0" desc:"time for one request in total, the CMP server's part included"`
	ReadHeaderTimeout  string `envconfig:"READ_HEADER_TIMEOUT" default:"10s" rule:"a duration such as 10s, more than 0" desc:"time for a client to send its headers"`
	IdleTimeout        string `envconfig:"IDLE_TIMEOUT" default:"2m" rule:"a duration such as 2m, more than 0" desc:"how long a connection is kept without a request"`
	ShutdownTimeout    string `envconfig:"SHUTDOWN_TIMEOUT" default:"25s" rule:"a duration such as 25s, more than 0" desc:"time to finish the requests in progress when the service is stopped"`
	LogLevel           string `envconfig:"LOG_LEVEL" default:"info" rule:"debug, info, warn or error" desc:"least severe level that is logged"`
	LogFormat          string `envconfig:"LOG_FORMAT" default:"json" rule:"json or text" desc:"format of the log on standard error"`
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

// loadSettings reads the environment and returns all its faults; the log settings are usable even then.
// An empty variable counts as unset.
func loadSettings() (settings, []program.Fault) {
	var env environment
	r := program.ReadEnvironment(&env)
	s := settings{
		files: mtls.Files{
			KeystorePath: env.KeystorePath, KeystoreKeyPath: env.KeystoreKeyPath, KeystorePassword: env.KeystorePassword,
			TruststorePath: env.TruststorePath, TruststorePassword: env.TruststorePassword, Server: true,
			KeystorePasswordFile: r.SecretFile("KEYSTORE_PASSWORD"), TruststorePasswordFile: r.SecretFile("TRUSTSTORE_PASSWORD"),
		},
		httpsPort:         r.Number("HTTPS_PORT", 0, 65535),
		handshakeAuth:     r.Choice("CLIENT_AUTH", "answer", "handshake") == "handshake",
		cmpServersPath:    env.CMPServersPath,
		responseTrust:     r.Choice("RESPONSE_TRUST", certservice.TrustAnchored, certservice.TrustONAP),
		metricsAddr:       env.MetricsAddr,
		maxInFlight:       r.Number("MAX_IN_FLIGHT", 1, 1<<30),
		maxRSABits:        r.Number("MAX_RSA_BITS", certservice.LeastMaxRSABits, certservice.MostMaxRSABits),
		requestTimeout:    r.Duration("REQUEST_TIMEOUT", 1),
		readHeaderTimeout: r.Duration("READ_HEADER_TIMEOUT", 1),
		idleTimeout:       r.Duration("IDLE_TIMEOUT", 1),
		graceTime:         r.Duration("SHUTDOWN_TIMEOUT", 1),
		log:               r.Log(),
	}
	if env.MaxPerClient != "" {
		s.maxPerClient = r.Number("MAX_IN_FLIGHT_PER_CLIENT", 1, 1<<30)
	}
	if env.MaxConnections != "" {
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
		err = program.WriteUsage(w, &environment{})
	}
	if err == nil {
		_, err = io.WriteString(w, `
Exit codes: 0 ended by a signal, or nothing wrong found; 1 a fault in the configuration, or serving failed;
2 wrong usage; 99 too few files may be open (RLIMIT_NOFILE).
`)
	}
	return err
}
