package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/mtls"
)

// environment is every variable as text, before any rule is applied. Its tags are the one source of the
// --help output and of the rules quoted in faults: name, default, rule (to follow "want"), desc, and
// secret for a value that is never shown and may be given as NAME_FILE, a path.
type environment struct {
	HTTPSPort          string `envconfig:"HTTPS_PORT" default:"8443" rule:"a port number, 0 for a free one" desc:"port of the REST API, on all addresses"`
	KeystorePath       string `envconfig:"KEYSTORE_PATH" default:"/etc/onap/oom/certservice/certs/certServiceServer-keystore.jks" rule:"the path of a JKS, PKCS#12 or PEM file" desc:"the service's own certificate and key; read again when it changes"`
	KeystorePassword   string `envconfig:"KEYSTORE_PASSWORD" default:"secret" secret:"true" rule:"the password of KEYSTORE_PATH" desc:"password of that file; not needed for PEM with a plain key"`
	KeystoreKeyPath    string `envconfig:"KEYSTORE_KEY_PATH" rule:"the path of a PEM private key" desc:"private key, when KEYSTORE_PATH is PEM and holds certificates only"`
	TruststorePath     string `envconfig:"TRUSTSTORE_PATH" default:"/etc/onap/oom/certservice/certs/truststore.jks" rule:"the path of a JKS, PKCS#12 or PEM file" desc:"CAs that client certificates must chain to; read again when it changes"`
	TruststorePassword string `envconfig:"TRUSTSTORE_PASSWORD" default:"secret" secret:"true" rule:"the password of TRUSTSTORE_PATH" desc:"password of that file; not needed for PEM"`
	ClientAuth         string `envconfig:"CLIENT_AUTH" default:"answer" rule:"answer or handshake" desc:"how a missing or untrusted client certificate is refused: with status 401, or in the TLS handshake as the ONAP server does"`
	CMPServersPath     string `envconfig:"CMP_SERVERS_PATH" default:"/etc/onap/oom/certservice/cmpServers.json" rule:"the path of a cmpServers.json" desc:"the certification authorities; read again when it changes, on SIGHUP and on GET /reload"`
	ResponseTrust      string `envconfig:"RESPONSE_TRUST" default:"anchored" rule:"anchored or onap" desc:"for CMP servers with neither trustAnchors nor responseTrust: refuse signed answers, or trust them as the ONAP server did, which lets whoever is on the way to the CA issue certificates"`
	MetricsAddr        string `envconfig:"METRICS_ADDR" rule:"host:port or :port" desc:"plain HTTP address for /metrics and the probes, which need no client certificate there; none when empty"`
	MaxInFlight        string `envconfig:"MAX_IN_FLIGHT" default:"256" rule:"a number from 1" desc:"enrolments and updates at the same time; above it the answer is 503 with Retry-After"`
	RequestTimeout     string `envconfig:"REQUEST_TIMEOUT" default:"60s" rule:"a duration such as 30s, more than 0" desc:"for one request in all, the CMP server's part included"`
	ReadHeaderTimeout  string `envconfig:"READ_HEADER_TIMEOUT" default:"10s" rule:"a duration such as 10s, more than 0" desc:"for a client to send its headers"`
	IdleTimeout        string `envconfig:"IDLE_TIMEOUT" default:"2m" rule:"a duration such as 2m, more than 0" desc:"how long a connection is kept without a request"`
	ShutdownTimeout    string `envconfig:"SHUTDOWN_TIMEOUT" default:"25s" rule:"a duration such as 25s, more than 0" desc:"for what is in flight when the service is told to end"`
	LogLevel           string `envconfig:"LOG_LEVEL" default:"info" rule:"debug, info, warn or error" desc:"least severe level that is logged"`
	LogFormat          string `envconfig:"LOG_FORMAT" default:"json" rule:"json or text" desc:"format of the log on standard error"`
}

// settings are the environment's values, checked.
type settings struct {
	httpsPort                                                 int
	files                                                     mtls.Files
	handshakeAuth                                             bool
	cmpServersPath, responseTrust, metricsAddr                string
	maxInFlight                                               int
	requestTimeout, readHeaderTimeout, idleTimeout, graceTime time.Duration
	logLevel                                                  slog.Level
	logText                                                   bool
}

// loadSettings reads the environment and returns all its faults; the log settings are usable even then.
// An empty variable counts as unset.
func loadSettings() (settings, []string) {
	var env environment
	if err := envconfig.Process("", &env); err != nil {
		panic(err) // every field is text, so this does not depend on what the environment holds
	}
	l := loader{}
	l.resolve(&env)
	s := settings{
		files: mtls.Files{
			KeystorePath: env.KeystorePath, KeystoreKeyPath: env.KeystoreKeyPath, KeystorePassword: env.KeystorePassword,
			TruststorePath: env.TruststorePath, TruststorePassword: env.TruststorePassword, Server: true,
		},
		httpsPort:         l.number("HTTPS_PORT", env.HTTPSPort, 0, 65535),
		handshakeAuth:     l.choice("CLIENT_AUTH", env.ClientAuth, "answer", "handshake") == 1,
		cmpServersPath:    env.CMPServersPath,
		responseTrust:     certservice.TrustAnchored,
		metricsAddr:       env.MetricsAddr,
		maxInFlight:       l.number("MAX_IN_FLIGHT", env.MaxInFlight, 1, 1<<30),
		requestTimeout:    l.duration("REQUEST_TIMEOUT", env.RequestTimeout),
		readHeaderTimeout: l.duration("READ_HEADER_TIMEOUT", env.ReadHeaderTimeout),
		idleTimeout:       l.duration("IDLE_TIMEOUT", env.IdleTimeout),
		graceTime:         l.duration("SHUTDOWN_TIMEOUT", env.ShutdownTimeout),
		logText:           l.choice("LOG_FORMAT", env.LogFormat, "json", "text") == 1,
	}
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	s.logLevel = levels[l.choice("LOG_LEVEL", env.LogLevel, "debug", "info", "warn", "error")]
	if l.choice("RESPONSE_TRUST", env.ResponseTrust, certservice.TrustAnchored, certservice.TrustONAP) == 1 {
		s.responseTrust = certservice.TrustONAP
	}
	if s.metricsAddr != "" {
		_, port, err := net.SplitHostPort(s.metricsAddr)
		if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 0 || n > 65535 {
			l.reject("METRICS_ADDR", s.metricsAddr)
		}
	}
	return s, l.faults
}

// loader collects the faults.
type loader struct {
	faults []string
}

// resolve fills in what NAME_FILE gives, and the defaults of variables that are empty: envconfig fills in
// those that are unset, and would hide a NAME_FILE behind the default of NAME.
func (l *loader) resolve(env *environment) {
	v := reflect.ValueOf(env).Elem()
	for i := range v.NumField() {
		tag, field := v.Type().Field(i).Tag, v.Field(i)
		name := tag.Get("envconfig")
		if tag.Get("secret") == "true" {
			field.SetString(l.secret(name))
		}
		if field.String() == "" {
			field.SetString(tag.Get("default"))
		}
	}
}

// secret returns the value of a variable or of the file that its twin names, one trailing newline dropped.
func (l *loader) secret(name string) string {
	value, path := os.Getenv(name), os.Getenv(name+"_FILE")
	switch {
	case path == "":
		return value
	case value != "":
		l.faults = append(l.faults, fmt.Sprintf("%s_FILE and %s are both set, want one of them", name, name))
		return value
	}
	content, err := os.ReadFile(path)
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err
		}
		l.faults = append(l.faults, fmt.Sprintf("%s_FILE has %q, which cannot be read: %v", name, path, err))
	}
	value = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if err == nil && value == "" {
		l.faults = append(l.faults, fmt.Sprintf("%s_FILE has %q, which is empty", name, path))
	}
	return value
}

func (l *loader) reject(name, value string) {
	for field := range reflect.TypeFor[environment]().Fields() {
		if field.Tag.Get("envconfig") == name {
			l.faults = append(l.faults, fmt.Sprintf("%s has %q, want %s", name, value, field.Tag.Get("rule")))
		}
	}
}

func (l *loader) number(name, value string, lowest, highest int) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < lowest || n > highest {
		l.reject(name, value)
	}
	return n
}

func (l *loader) duration(name, value string) time.Duration {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		l.reject(name, value)
	}
	return d
}

// choice returns the index of the value among those allowed, whatever its case; 0 after a fault.
func (l *loader) choice(name, value string, allowed ...string) int {
	i := slices.Index(allowed, strings.ToLower(value))
	if i < 0 {
		l.reject(name, value)
		return 0
	}
	return i
}

// writeUsage prints every variable with its default, meaning and rule.
func writeUsage(w io.Writer) error {
	var text strings.Builder
	text.WriteString(`certservice has certificate requests signed by CMPv2 servers, over REST and mutual TLS.

Usage: certservice [--check | --help | --version]

It is configured by environment variables:
`)
	for field := range reflect.TypeFor[environment]().Fields() {
		need := "optional"
		if d := field.Tag.Get("default"); d != "" {
			need = "default " + d
		}
		fmt.Fprintf(&text, "\n  %s (%s)\n      %s\n      %s\n", field.Tag.Get("envconfig"), need, field.Tag.Get("desc"), field.Tag.Get("rule"))
	}
	text.WriteString(`
An empty variable counts as unset. A password X may be given as X_FILE, the path of a file that holds it.

Exit codes: 0 ended by a signal, or nothing wrong found; 1 a fault in the configuration, or serving failed;
2 wrong usage.
`)
	_, err := io.WriteString(w, text.String())
	return err
}
