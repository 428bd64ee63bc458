package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// update checks where renewals are asked for, when that was given and does not follow from REQUEST_URL: all that is
// checked of REQUEST_URL, of which the first thing wrong is reported.
func (d *doctor) update(ctx context.Context, identity *mtls.Identity) {
	target := d.Config.Request.UpdateURL
	if fault := d.faulty("UPDATE_URL"); fault != "" {
		d.skip(checkUpdate, fault+" has a fault")
		return
	}
	if target == "" {
		return
	}
	if failed := d.failedWay(); failed != "" && sameHost(target, d.Config.Request.URL) {
		d.skip(checkUpdate, "because the "+failed+" check failed, which is about the same host")
		return
	}
	cfg := *d.Config
	cfg.Request.URL = target
	other := &doctor{Options: d.Options}
	other.Config = &cfg
	other.Faults = slices.DeleteFunc(slices.Clone(d.Faults), func(f config.Fault) bool { return f.Variable == "REQUEST_URL" })
	other.network(ctx, identity)

	worst := Check{Status: OK, Found: target + " leads to a CertService that accepts us"}
	if identity == nil {
		worst = Check{Status: Skipped, Found: "not checked beyond TCP, because the mutual TLS files cannot be used"}
	}
	for _, status := range []Status{Failed, Warning} {
		i := slices.IndexFunc(other.checks, func(c Check) bool { return c.Status == status && c.Name != checkClock })
		if i >= 0 {
			worst = other.checks[i]
			worst.Found = fmt.Sprintf("UPDATE_URL %s, %s: %s", target, worst.Name, worst.Found)
			break
		}
	}
	named := strings.NewReplacer("REQUEST_URL", "UPDATE_URL", "ends in /v1/certificate/", "ends in /v1/certificate-update/")
	worst.Name, worst.Found, worst.Advice = checkUpdate, named.Replace(worst.Found), named.Replace(worst.Advice)
	d.add(worst)
}

// failedWay is the first failed check on the way to the CertService, as far as to its answers; or "".
func (d *doctor) failedWay() string {
	way := networkChecks[:slices.Index(networkChecks, checkService)]
	for _, c := range d.checks {
		if c.Status == Failed && slices.Contains(way, c.Name) {
			return c.Name
		}
	}
	return ""
}

func sameHost(a, b string) bool {
	first, err := url.Parse(a)
	if err != nil {
		return false
	}
	second, err := url.Parse(b)
	return err == nil && first.Hostname() == second.Hostname() && portOf(first) == portOf(second)
}

// health checks whether the address of probes and metrics is free. Beside a running sidecar, which is where doctor is
// mostly run, it is not, and rightly so.
func (d *doctor) health(ctx context.Context) {
	if fault := d.faulty("HEALTH_ADDR"); fault != "" {
		d.skip(checkHealth, fault+" has a fault")
		return
	}
	address := d.Config.Sidecar.HealthAddress
	if address == "" {
		return
	}
	if servedByCertfetcher(ctx, address) {
		d.ok(checkHealth, "%s is served by a running certfetcher; if that is not this container's, each needs a HEALTH_ADDR of its own", address)
		return
	}
	listener, err := net.Listen("tcp", address)
	if err == nil {
		listener.Close()
		d.ok(checkHealth, "%s is free", address)
		return
	}
	advice := "give an address of this pod in HEALTH_ADDR, or :PORT for all of them"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "another program of this pod listens there: give another port in HEALTH_ADDR, and in the probes"
	case errors.Is(err, syscall.EACCES):
		advice = "give a port from 1024 on in HEALTH_ADDR, and in the probes"
	}
	d.fail(enroll.StageClientConfiguration, checkHealth, fmt.Sprintf("HEALTH_ADDR %s cannot be used: %v", address, files.Reason(err)), advice)
}

// servedByCertfetcher tells a certfetcher by its metrics.
func servedByCertfetcher(ctx context.Context, address string) bool {
	_, body, err := program.AskLocal(ctx, address, "/metrics")
	return err == nil && bytes.Contains(body, []byte("\ncertfetcher_build_info{"))
}

// merge checks whether truststores can be merged and keystores copied. What certfetcher publishes may be missing yet.
func (d *doctor) merge() {
	if fault := d.faulty("TRUSTSTORES_PATHS", "TRUSTSTORES_PASSWORDS_PATHS", "KEYSTORE_SOURCE_PATHS", "KEYSTORE_DESTINATION_PATHS"); fault != "" {
		d.skip(checkMerge, fault+" has a fault")
		return
	}
	if d.Merge == nil {
		return
	}
	var texts []string
	for _, err := range truststore.Check(*d.Merge, func(path string) bool { return files.Within(d.Config.Output.Dir, path) }) {
		texts = append(texts, err.Error())
	}
	if len(texts) > 0 {
		d.fail(enroll.StageClientConfiguration, checkMerge, strings.Join(texts, "; "),
			"mend the files or the variables that name them: until then nothing is merged or copied, after no publication; "+whoAmI())
		return
	}
	d.ok(checkMerge, "truststores to merge: %d, keystores to copy: %d; they can be read, and the destinations written", len(d.Merge.Truststores), len(d.Merge.Keystores))
}
