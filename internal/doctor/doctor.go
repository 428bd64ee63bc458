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
	"net"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
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
	checkKeystore   = checks.Keystore
	checkChain      = "client chain"
	checkExpiry     = "client expiry"
	checkUsage      = "client usage"
	checkTruststore = checks.Truststore
	checkToken      = "token"
	checkLifetime   = "token expiry"

	checkProxy      = checks.Proxy
	checkDNS        = checks.DNS
	checkTCP        = checks.TCP
	checkTLS        = checks.TLS
	checkServer     = checks.Server
	checkTrust      = checks.Trust
	checkServerName = checks.ServerName
	checkAccepted   = checks.Accepted
	checkService    = "certservice"
	checkCAName     = "ca name"
	checkClock      = checks.Clock
	checkAnchors    = checks.Anchors
	checkCMP        = checks.CMP

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
func Run(ctx context.Context, o Options) checks.Report {
	d := &doctor{Options: o, List: checks.List{Expected: Expected}, lacking: "mutual TLS files"}
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
	sort.SliceStable(d.Checks, func(i, j int) bool {
		return slices.Index(order, d.Checks[i].Name) < slices.Index(order, d.Checks[j].Name)
	})
	return checks.Report{Checks: d.Checks}
}

// doctor makes the checks.
type doctor struct {
	Options
	checks.List
	lacking string // what cannot be used where there is no identity
}

func (d *doctor) ok(name, found string, args ...any) { d.OK(name, found, args...) }

func (d *doctor) warn(name, found, advice string) { d.Warn(name, found, advice) }

// fail reports a failed check; the stage is the one in which
// certfetcher would fail for the same reason.
func (d *doctor) fail(stage enroll.Stage, name, found, advice string) {
	d.Fail(stage.ExitCode(), name, found, advice)
}

func (d *doctor) skip(name, because string) { d.Skip(name, because) }

func (d *doctor) skipRest(names []string, because string) { d.SkipRest(names, because) }

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
