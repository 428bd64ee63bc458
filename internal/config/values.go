package config

import (
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/output"
)

// defaultTerminationMessagePath is the kubelet's
// terminationMessagePath when a container names none.
const defaultTerminationMessagePath = "/dev/termination-log"

const (
	alphanumeric     = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	caNameCharacters = alphanumeric + "_.~-"
)

func (l *loader) fetcher() *Fetcher {
	f := &Fetcher{
		Settings: enroll.Settings{
			Request: l.request(), Certificate: l.certificate(), Output: l.output(), ForceEnroll: l.Bool("FORCE_ENROLL"),
		},
		TLS: mtls.Files{
			KeystorePath: l.Value("KEYSTORE_PATH"), KeystoreKeyPath: l.Value("KEYSTORE_KEY_PATH"),
			KeystorePassword: l.Value("KEYSTORE_PASSWORD"),
			TruststorePath:   l.Value("TRUSTSTORE_PATH"), TruststorePassword: l.Value("TRUSTSTORE_PASSWORD"),
			KeystorePasswordFile:   l.SecretFile("KEYSTORE_PASSWORD"),
			TruststorePasswordFile: l.SecretFile("TRUSTSTORE_PASSWORD"),
		},
		Sidecar: l.sidecar(),
		Notify:  l.notify(),
		Log:     l.Log(),
		Inputs:  l.inputs(),
		TerminationMessagePath: terminationMessagePath(l.Value("TERMINATION_MESSAGE_PATH"),
			defaultTerminationMessagePath),
	}
	f.CMP = l.cmp()
	f.TLS.Partial = f.CMP != nil || f.Request.TokenPath != ""
	f.TLS.SignsOnly = f.CMP != nil && !l.isHTTPS("CMP_URL")
	renewal := l.renewal(f.Sidecar.Enabled && f.CMP == nil)
	if f.Sidecar.Enabled {
		f.Renewal = renewal
	}
	return f
}

// inputs names the files that are read. The password of written files is not among them: it may be
// one of those files.
func (l *loader) inputs() map[string]string {
	inputs := l.Files()
	maps.DeleteFunc(inputs, func(variable, _ string) bool { return strings.HasPrefix(variable, "OUTPUT_") })
	for _, variable := range []string{"KEYSTORE_PATH", "KEYSTORE_KEY_PATH", "TRUSTSTORE_PATH", "CMP_TRUST_ANCHORS",
		"TOKEN_PATH"} {
		if path := l.Value(variable); path != "" {
			inputs[variable] = path
		}
	}
	return inputs
}

func (l *loader) request() client.Config {
	retry := &client.Retry{
		InitialInterval: l.Duration("RETRY_INITIAL_INTERVAL", 1), MaxInterval: l.Duration("RETRY_MAX_INTERVAL", 1),
		MaxElapsed: l.Duration("RETRY_MAX_ELAPSED", 0),
	}
	r := client.Config{
		URL: l.Value("REQUEST_URL"), UpdateURL: l.Value("UPDATE_URL"), CAName: l.Value("CA_NAME"),
		Timeout: l.timeout("REQUEST_TIMEOUT"), Retry: retry,
		AllowNoClientAuth: l.Bool("ALLOW_NO_CLIENT_AUTH"), TokenPath: l.Value("TOKEN_PATH"),
	}
	l.checkURL("REQUEST_URL", "https")
	if len(r.CAName) > 128 || strings.Trim(r.CAName, caNameCharacters) != "" {
		l.Reject("CA_NAME", "")
	} else if r.CAName == "." || r.CAName == ".." {
		l.Reject("CA_NAME", "in a URL that is another path")
	}
	if retry.MaxInterval > 0 && retry.InitialInterval > retry.MaxInterval {
		l.Reject("RETRY_INITIAL_INTERVAL", "RETRY_MAX_INTERVAL is "+retry.MaxInterval.String())
	}
	return r
}

// checkURL checks the URL of a server. Where only https is allowed, a private key travels there.
func (l *loader) checkURL(name string, schemes ...string) {
	value := l.Value(name)
	u, err := url.Parse(value)
	switch {
	// Credentials in a URL are a secret: the value must not be shown, also where it cannot be
	// parsed for what is in them.
	case err != nil && strings.Contains(value, "@"), err == nil && u.User != nil:
		l.Add(name, "has a user name or password in it, want "+l.Rule(name))
	case strings.TrimSpace(value) != value:
		l.Reject(name, "it begins or ends with white space")
	case !strings.Contains(value, "//"):
		l.Reject(name, "the scheme is missing: write "+schemes[0]+"://"+value)
	case err != nil:
		l.Reject(name, "not a URL")
	case u.Scheme == "http" && !slices.Contains(schemes, u.Scheme):
		l.Reject(name, "the private key must not travel in the clear")
	case !slices.Contains(schemes, u.Scheme):
		l.Reject(name, fmt.Sprintf("its scheme is %q", u.Scheme))
	case !isPort(u.Port()):
		l.Reject(name, "a port is a number from 1 to 65535")
	case u.Hostname() == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		l.Reject(name, "")
	}
}

// isPort tells a port that can be connected to; empty is the scheme's.
func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return text == "" || err == nil && port > 0
}

func (l *loader) output() output.Config {
	o := output.Config{
		Dir:                   filepath.Clean(l.Value("OUTPUT_PATH")),
		Types:                 l.outputTypes(l.Value("OUTPUT_TYPE")),
		Layout:                l.Choice("OUTPUT_LAYOUT", "symlink", "inplace"),
		FileMode:              l.fileMode("OUTPUT_FILE_MODE"),
		Group:                 l.group("OUTPUT_GROUP"),
		KeystoreAlias:         l.alias("KEYSTORE_ALIAS"),
		TruststoreAliasPrefix: l.alias("TRUSTSTORE_ALIAS_PREFIX"),
		P12Profile:            l.Choice("P12_PROFILE", "modern", "legacy"),
		KeystorePassword:      l.storePassword("OUTPUT_KEYSTORE_PASSWORD"),
		TruststorePassword:    l.storePassword("OUTPUT_TRUSTSTORE_PASSWORD"),
	}
	if l.Value("OUTPUT_PATH") != "" && (!filepath.IsAbs(l.Value("OUTPUT_PATH")) ||
		strings.ContainsRune(l.Value("OUTPUT_PATH"), 0)) {
		l.Reject("OUTPUT_PATH", "")
	}
	return o
}

func (l *loader) outputTypes(text string) []string {
	var types []string
	for _, entry := range strings.Split(text, ",") {
		t := strings.ToUpper(strings.TrimSpace(entry))
		if !slices.Contains(output.FormatNames(), t) {
			l.Reject("OUTPUT_TYPE", program.SuggestWriting(meantType(t)))
			return nil
		}
		if !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	return types
}

// meantType finds the type that other programs call by the name, or "".
func meantType(name string) string {
	name = strings.NewReplacer("-", "", "_", "", "#", "", ".", "").Replace(name)
	for _, format := range output.Formats() {
		if slices.Contains(format.OtherNames, name) {
			return format.Name
		}
	}
	return ""
}

func (l *loader) fileMode(name string) fs.FileMode {
	mode, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(l.Value(name)), "0o"), 8, 32)
	if err != nil || mode&^0o666 != 0 || mode&0o400 == 0 {
		l.Reject(name, program.SuggestWriting(meantMode(l.Value(name))))
		return 0
	}
	return fs.FileMode(mode)
}

// meantMode finds the octal mode that YAML turned into a
// decimal number, or "": an unquoted 0640 comes as 416.
func meantMode(text string) string {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < 0o400 || n&^0o666 != 0 || n&0o400 == 0 {
		return ""
	}
	return fmt.Sprintf("%q, with quotes in YAML", fmt.Sprintf("%04o", n))
}

// group checks that a group can be found here: a number always can.
func (l *loader) group(name string) string {
	group := l.Value(name)
	if _, err := output.LookupGroup(group); err != nil {
		l.Reject(name, "no group of that name is in /etc/group, give its number")
	}
	return group
}

// alias checks an alias of a store's entry.
func (l *loader) alias(name string) string {
	alias := l.Value(name)
	// JKS has strings of UTF-16, which Java encodes in a way of its own past U+FFFF.
	beyond := func(r rune) bool { return r > 0xffff }
	if utf8.RuneCountInString(alias) > 128 || strings.ContainsFunc(alias, notPrintable) ||
		strings.ContainsFunc(alias, beyond) {
		l.Reject(name, "")
	}
	return alias
}

// storePassword checks a password against what keytool and the JVM accept: the six characters are
// keytool's minimum, and JDKs before 25 refuse a PKCS#12 password that is not ASCII.
func (l *loader) storePassword(name string) string {
	password := l.Value(name)
	notASCII := func(r rune) bool { return r < ' ' || r > '~' }
	if password != "" && (len(password) < 6 || strings.ContainsFunc(password, notASCII)) {
		l.Reject(name, "")
	}
	return password
}

func notPrintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// TerminationMessagePath is the Fetcher's of the same name, for who cannot wait for the rest of it.
func TerminationMessagePath() string {
	path, set := os.LookupEnv("TERMINATION_MESSAGE_PATH")
	if !set {
		path = defaultTerminationMessagePath
	}
	return terminationMessagePath(path, defaultTerminationMessagePath)
}

// terminationMessagePath drops the kubelet's path where no one reads it: outside Kubernetes the
// file does not exist, and making it would be litter.
func terminationMessagePath(path, kubelets string) string {
	if path == kubelets {
		if _, err := os.Stat(path); err != nil {
			return ""
		}
	}
	return path
}

// timeout reads a time as the ONAP client did, a number of milliseconds, or as a Go duration.
func (l *loader) timeout(name string) time.Duration {
	text := l.Value(name)
	if ms, err := strconv.ParseInt(text, 10, 32); err == nil {
		text = strconv.FormatInt(ms, 10) + "ms"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		l.Reject(name, program.DurationHint(l.Value(name)))
	}
	return d
}
