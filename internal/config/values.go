package config

import (
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// defaultTerminationMessagePath is the kubelet's terminationMessagePath when a container names none.
const defaultTerminationMessagePath = "/dev/termination-log"

const (
	alphanumeric     = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	caNameCharacters = alphanumeric + "_.~-"
)

func (l *loader) fetcher(env *environment) *Fetcher {
	return &Fetcher{
		Request: l.request(env),
		TLS: TLS{
			KeystorePath: env.KeystorePath, KeystoreKeyPath: env.KeystoreKeyPath, KeystorePassword: env.KeystorePassword,
			TruststorePath: env.TruststorePath, TruststorePassword: env.TruststorePassword,
		},
		Certificate:            l.certificate(env),
		Output:                 l.output(env),
		Sidecar:                l.sidecar(env),
		Notify:                 l.notify(env),
		Log:                    l.log(env),
		ForceEnroll:            l.boolean("FORCE_ENROLL"),
		TerminationMessagePath: terminationMessagePath(env.TerminationMessagePath),
	}
}

func (l *loader) request(env *environment) Request {
	r := Request{
		URL:                  env.RequestURL,
		Timeout:              l.timeout("REQUEST_TIMEOUT"),
		CAName:               env.CAName,
		RetryInitialInterval: l.duration("RETRY_INITIAL_INTERVAL", 1),
		RetryMaxInterval:     l.duration("RETRY_MAX_INTERVAL", 1),
		RetryMaxElapsed:      l.duration("RETRY_MAX_ELAPSED", 0),
	}
	l.httpsURL("REQUEST_URL")
	if len(r.CAName) > 128 || strings.Trim(r.CAName, caNameCharacters) != "" {
		l.reject("CA_NAME", "")
	}
	if r.RetryMaxInterval > 0 && r.RetryInitialInterval > r.RetryMaxInterval {
		l.reject("RETRY_INITIAL_INTERVAL", "RETRY_MAX_INTERVAL is "+r.RetryMaxInterval.String())
	}
	return r
}

// httpsURL checks a URL over which a private key may travel.
func (l *loader) httpsURL(name string) {
	v := l.lookup(name)
	u, err := url.Parse(*v.value)
	switch {
	case err != nil:
		l.reject(name, "not a URL")
	case u.User != nil:
		// Credentials in a URL are a secret: the value must not be shown.
		l.add(v.Part, name, "has a user name or password in it, want "+v.Rule)
	case u.Scheme != "https":
		l.reject(name, "the private key must not travel in the clear")
	case u.Hostname() == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		l.reject(name, "")
	}
}

func (l *loader) output(env *environment) Output {
	o := Output{
		Dir:                   filepath.Clean(env.OutputPath),
		Types:                 l.outputTypes(env.OutputType),
		Layout:                l.choice("OUTPUT_LAYOUT", "symlink", "inplace"),
		FileMode:              l.fileMode("OUTPUT_FILE_MODE"),
		Group:                 env.OutputGroup,
		KeystoreAlias:         l.alias("KEYSTORE_ALIAS"),
		TruststoreAliasPrefix: l.alias("TRUSTSTORE_ALIAS_PREFIX"),
		P12Profile:            l.choice("P12_PROFILE", "modern", "legacy"),
		KeystorePassword:      l.storePassword("OUTPUT_KEYSTORE_PASSWORD"),
		TruststorePassword:    l.storePassword("OUTPUT_TRUSTSTORE_PASSWORD"),
	}
	if env.OutputPath != "" && (!filepath.IsAbs(env.OutputPath) || strings.ContainsRune(env.OutputPath, 0)) {
		l.reject("OUTPUT_PATH", "")
	}
	return o
}

func (l *loader) outputTypes(text string) []string {
	var types []string
	for _, entry := range strings.Split(text, ",") {
		t := strings.ToUpper(strings.TrimSpace(entry))
		if !slices.Contains([]string{"P12", "JKS", "PEM"}, t) {
			l.reject("OUTPUT_TYPE", "")
			return nil
		}
		if !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	return types
}

func (l *loader) fileMode(name string) fs.FileMode {
	mode, err := strconv.ParseUint(*l.lookup(name).value, 8, 32)
	if err != nil || mode&^0o666 != 0 || mode&0o400 == 0 {
		l.reject(name, "")
		return 0
	}
	return fs.FileMode(mode)
}

// alias checks an alias of a store's entry.
func (l *loader) alias(name string) string {
	alias := *l.lookup(name).value
	if utf8.RuneCountInString(alias) > 128 || strings.ContainsFunc(alias, notPrintable) {
		l.reject(name, "")
	}
	return alias
}

// storePassword checks a password against what keytool and the JVM accept: the six characters are
// keytool's minimum, and JDKs before 25 refuse a PKCS#12 password that is not ASCII.
func (l *loader) storePassword(name string) string {
	password := *l.lookup(name).value
	notASCII := func(r rune) bool { return r < ' ' || r > '~' }
	if password != "" && (len(password) < 6 || strings.ContainsFunc(password, notASCII)) {
		l.reject(name, "")
	}
	return password
}

func notPrintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

func (l *loader) log(env *environment) Log {
	log := Log{JSON: l.choice("LOG_FORMAT", "json", "text") != "text"}
	switch strings.ToLower(env.LogLevel) {
	case "debug":
		log.Level = slog.LevelDebug
	case "info":
	case "warn":
		log.Level = slog.LevelWarn
	case "error":
		log.Level = slog.LevelError
	default:
		l.reject("LOG_LEVEL", "")
	}
	return log
}

// terminationMessagePath drops the default where nobody reads it: outside Kubernetes the file does
// not exist, and making it would be litter.
func terminationMessagePath(path string) string {
	if path == defaultTerminationMessagePath {
		if _, err := os.Stat(path); err != nil {
			return ""
		}
	}
	return path
}

func (l *loader) boolean(name string) bool {
	return l.choice(name, "true", "false") == "true"
}

// choice returns the value in lower case, which must be one of those given.
func (l *loader) choice(name string, choices ...string) string {
	value := strings.ToLower(*l.lookup(name).value)
	if !slices.Contains(choices, value) {
		l.reject(name, "")
	}
	return value
}

// timeout reads a time as the ONAP client did, a number of milliseconds, or as a Go duration.
func (l *loader) timeout(name string) time.Duration {
	text := *l.lookup(name).value
	if ms, err := strconv.ParseInt(text, 10, 32); err == nil {
		text = strconv.FormatInt(ms, 10) + "ms"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		l.reject(name, "")
	}
	return d
}

// duration reads a Go duration that is at least least.
func (l *loader) duration(name string, least time.Duration) time.Duration {
	d, err := time.ParseDuration(*l.lookup(name).value)
	if err != nil || d < least {
		l.reject(name, "")
		return 0
	}
	return d
}
