// Package doctor checks a deployment without requesting a certificate: variables, mutual TLS
// files, the way to the CertService and what it answers, the volume, who can read it, and who is
// notified when the certificate changes.
//
// It issues nothing: what it sends to the CertService are GETs without a
// CSR. It leaves nothing behind: what it writes, in a hidden directory of
// its own on the volume and in hidden files beside what merging changes, it
// removes again, and files that are there are only read. It shows no secret.
package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// DefaultNetworkTimeout bounds each check that uses the network.
const DefaultNetworkTimeout = 5 * time.Second

// Options say what is checked. Config is required.
type Options struct {
	// Config is what config.Load returns, and Faults are all that keep certfetcher from starting
	// with the environment. What depends on a variable with a fault is skipped.
	Config *config.Fetcher
	Faults config.Faults
	// Merge is what a sidecar does after each publication.
	// Nil: nothing, or not known for its faults.
	Merge *truststore.Config
	// Notify is what notify.New makes of Config.Notify.
	Notify notify.Config
	// Reader is whom the application's container runs as. Nil: whether it can read is not checked.
	Reader *Reader
	// NetworkTimeout bounds each check that uses the network; 0: DefaultNetworkTimeout.
	NetworkTimeout time.Duration
	UserAgent      string // empty: "certfetcher"

	Now    func() time.Time                      // nil: time.Now
	Proxy  func(*http.Request) (*url.URL, error) // nil: http.ProxyFromEnvironment
	Dialer *net.Dialer                           // of all connections; nil: one without settings
}

// The checks' names. A report leaves out those of what is not configured.
const (
	checkVariables  = "variables"
	checkKeystore   = "keystore"
	checkChain      = "client chain"
	checkExpiry     = "client expiry"
	checkUsage      = "client usage"
	checkTruststore = "truststore"
	checkToken      = "token"
	checkLifetime   = "token expiry"

	checkProxy      = "proxy"
	checkDNS        = "dns"
	checkTCP        = "tcp"
	checkTLS        = "tls"
	checkServer     = "server certificate"
	checkTrust      = "server trust"
	checkServerName = "server name"
	checkAccepted   = "client accepted"
	checkService    = "certservice"
	checkCAName     = "ca name"
	checkClock      = "clock"
	checkAnchors    = "trust anchors"
	checkCMP        = "cmp"

	checkUpdate = "update url"

	checkVolume     = "volume"
	checkFileSystem = "file system"
	checkSpace      = "free space"
	checkWriting    = "writing"
	checkLayout     = "layout"
	checkReader     = "reader"
	checkPublished  = "published"

	checkHealth  = "health address"
	checkMerge   = "postprocess"
	checkTrigger = "trigger file" // before those of notify.Kinds
)

// The groups within which one failed check makes others pointless.
var (
	identityChecks = []string{checkKeystore, checkChain, checkExpiry, checkUsage, checkTruststore}
	tokenChecks    = []string{checkToken, checkLifetime}
	networkChecks  = []string{
		checkProxy, checkDNS, checkTCP, checkTLS, checkServer, checkTrust, checkServerName,
		checkAccepted, checkService, checkCAName, checkClock,
	}
	cmpChecks    = []string{checkProxy, checkDNS, checkTCP, checkAnchors, checkCMP}
	volumeChecks = []string{checkVolume, checkFileSystem, checkSpace, checkWriting, checkLayout,
		checkReader, checkPublished}
)

// order is that of a report: what has to be repaired first comes first.
var order = slices.Concat([]string{checkVariables}, identityChecks, tokenChecks, networkChecks,
	[]string{checkAnchors, checkCMP, checkUpdate}, volumeChecks,
	[]string{checkHealth, checkMerge, checkTrigger}, notifyChecks())

func notifyChecks() (names []string) {
	for _, kind := range notify.Kinds {
		names = append(names, kind.Check)
	}
	return names
}

// Run makes all checks, one after the other, and takes at most a few
// times NetworkTimeout. When ctx ends, those that use the network fail
// at once; what was written on the volume is removed all the same.
func Run(ctx context.Context, o Options) Report {
	d := &doctor{Options: o, lacking: "mutual TLS files"}
	d.NetworkTimeout = cmp.Or(d.NetworkTimeout, DefaultNetworkTimeout)
	d.UserAgent = cmp.Or(d.UserAgent, "certfetcher")
	d.Dialer = cmp.Or(d.Dialer, &net.Dialer{})
	if d.Now == nil {
		d.Now = time.Now
	}
	d.variables()
	identity := d.identity()
	d.network(ctx, identity)
	d.volume()
	if d.Config.Sidecar.Enabled {
		d.update(ctx, identity)
		d.health(ctx)
		d.merge()
		d.hooks(ctx)
	}
	sort.SliceStable(d.checks, func(i, j int) bool {
		return slices.Index(order, d.checks[i].Name) < slices.Index(order, d.checks[j].Name)
	})
	return Report{Checks: d.checks}
}

// doctor collects the checks.
type doctor struct {
	Options
	checks  []Check
	lacking string // what cannot be used where there is no identity
}

func (d *doctor) ok(name, found string, args ...any) {
	d.add(Check{Name: name, Status: OK, Found: fmt.Sprintf(found, args...)})
}

//go:noinline
func (d *doctor) warn(name, found, advice string) {
	d.add(Check{Name: name, Status: Warning, Found: found, Advice: advice})
}

// fail reports a failed check; the stage is the one in which
// certfetcher would fail for the same reason.
//
//go:noinline
func (d *doctor) fail(stage enroll.Stage, name, found, advice string) {
	d.add(Check{Name: name, Status: Failed, Found: found, Advice: advice, ExitCode: stage.ExitCode()})
}

func (d *doctor) skip(name, because string) {
	d.add(Check{Name: name, Status: Skipped, Found: because})
}

// add takes a check in. Much in its texts comes from certificates and servers: none of it may
// reach a terminal as a control sequence.
func (d *doctor) add(c Check) {
	c.Found, c.Advice = oneLine(c.Found), oneLine(c.Advice)
	d.checks = append(d.checks, c)
}

// skipRest skips those of the names that are not reported yet.
func (d *doctor) skipRest(names []string, because string) {
	for _, name := range names {
		if !slices.ContainsFunc(d.checks, func(c Check) bool { return c.Name == name }) {
			d.skip(name, because)
		}
	}
}

// faulty returns the first of the variables that has a fault, or "".
func (d *doctor) faulty(variables ...string) string {
	for _, fault := range d.Faults {
		if slices.Contains(variables, strings.TrimSuffix(fault.Variable, "_FILE")) {
			return fault.Variable
		}
	}
	return ""
}

func (d *doctor) variables() {
	for _, warning := range d.Config.Warnings {
		d.warn(checkVariables, warning.Error(), "correct "+warning.Variable+
			" in the environment of this container; --help and postprocess --help list the rules")
	}
	if len(d.Faults)+len(d.Config.Warnings) == 0 {
		d.ok(checkVariables, "every variable is usable")
	}
	for _, fault := range d.Faults {
		advice := "correct " + fault.Variable +
			" in the environment of this container; --help and postprocess --help list the rules"
		if strings.HasSuffix(fault.Variable, "_FILE") {
			advice = "correct the variable, or the file or Secret that it leads to"
		}
		d.fail(fault.Stage, checkVariables, fault.Error(), advice)
	}
}

// maxText bounds, in characters, what of a text is shown: some of it comes from others.
const maxText = 1500

func oneLine(s string) string { return pki.OneLine(s, maxText) }

// Status is how a check came out.
type Status string

const (
	OK      Status = "ok"
	Warning Status = "warning" // certfetcher works, but something should be repaired
	Failed  Status = "failed"  // certfetcher fails, or what it does is in vain
	Skipped Status = "skipped" // not checked; Found says why
)

// Check is one thing that was looked at. Texts are one line each and hold no secret.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to do, of a warning or failure
	// ExitCode is the one with which certfetcher would fail
	// for the same reason; 0 when nothing failed.
	ExitCode int `json:"exitCode,omitempty"`
}

// Report is the list of checks in the order in which they were made. A name can come more than
// once: each variable with a fault has a check of its own.
type Report struct {
	Checks []Check
}

// ExitCode is 0 when no check failed, warnings or not; else the exit code of the first that failed.
func (r Report) ExitCode() int {
	for _, c := range r.Checks {
		if c.Status == Failed {
			return c.ExitCode
		}
	}
	return 0
}

// Status is the worst of the checks; skipped ones do not count.
func (r Report) Status() Status {
	worst := OK
	for _, c := range r.Checks {
		switch c.Status {
		case Failed:
			return Failed
		case Warning:
			worst = Warning
		}
	}
	return worst
}

// WriteJSON writes {"status", "exitCode", "checks": […]}, the checks as Check has them.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		Status   Status  `json:"status"`
		ExitCode int     `json:"exitCode"`
		Checks   []Check `json:"checks"`
	}{r.Status(), r.ExitCode(), append([]Check{}, r.Checks...)})
}

// The columns of the text: two of fixed width, and a third up to textWidth.
const (
	statusWidth = 9
	nameWidth   = 20
	textWidth   = 100
)

// WriteText writes a line for each check, wrapped at 100 columns, with what to do after an arrow,
// and a summary at the end.
func (r Report) WriteText(w io.Writer) error {
	var text strings.Builder
	counts := map[Status]int{}
	for _, c := range r.Checks {
		counts[c.Status]++
		lines := wrap(c.Found, textWidth-statusWidth-nameWidth)
		if c.Advice != "" {
			arrow := "-> "
			for _, line := range wrap(c.Advice, textWidth-statusWidth-nameWidth-len(arrow)) {
				lines = append(lines, arrow+line)
				arrow = "   "
			}
		}
		status, name := string(c.Status), c.Name
		for _, line := range lines {
			fmt.Fprintf(&text, "%-*s%-*s%s\n", statusWidth, status, nameWidth, name, line)
			status, name = "", ""
		}
	}
	fmt.Fprintf(&text, "\nfailed: %d, warnings: %d, ok: %d, skipped: %d; exit code %d\n",
		counts[Failed], counts[Warning], counts[OK], counts[Skipped], r.ExitCode())
	_, err := io.WriteString(w, text.String())
	return err
}

// wrap breaks a text at spaces; a longer word stands alone. There is at least one line.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
