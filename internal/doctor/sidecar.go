package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// hooks checks what a sidecar does when the certificate changes. Nothing is run, signalled or
// posted. An application that is not there is a warning, as it may not be up yet.
func (d *doctor) hooks(ctx context.Context) {
	if fault := d.faulty("RENEW_TRIGGER_FILE"); fault != "" {
		d.skip(checkTrigger, fault+" has a fault")
	} else if d.Config.Sidecar.TriggerFile != "" {
		d.trigger()
	}
	var names []string
	if template := d.Config.Certificate.Template; template != nil {
		names = template.DNSNames
	}
	for _, kind := range notify.Kinds {
		if fault := d.faulty(kind.Variables...); fault != "" {
			d.skip(kind.Check, fault+" has a fault")
		} else if notifier := d.Notify.Checker(kind.Name); notifier != nil {
			limited, cancel := context.WithTimeout(ctx, d.NetworkTimeout)
			d.notifier(kind.Check, notifier.Check(limited, names))
			cancel()
		}
	}
}

func (d *doctor) notifier(name string, finding notify.Finding) {
	if finding.Err != nil {
		finding.Found += ": " + checks.Reason(finding.Err, d.NetworkTimeout)
	}
	switch {
	case finding.Advice == "":
		d.ok(name, "%s", finding.Found)
	case finding.Fatal:
		d.fail(enroll.StageClientConfiguration, name, finding.Found, finding.Advice)
	default:
		d.warn(name, finding.Found, finding.Advice+"; "+whoAmI())
	}
}

func (d *doctor) trigger() {
	dir := filepath.Dir(d.Config.Sidecar.TriggerFile)
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		d.warn(checkTrigger, fmt.Sprintf("the directory %q: %v", dir, files.Reason(err)),
			"mount the volume that the trigger file appears on, or correct RENEW_TRIGGER_FILE")
	case !info.IsDir():
		d.warn(checkTrigger, fmt.Sprintf("%q is a file, want a directory", dir), "correct RENEW_TRIGGER_FILE")
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		d.warn(checkTrigger, "the trigger file cannot be removed when it has been seen: "+statText(dir, info),
			"give the right to write to certfetcher's user or group; "+whoAmI())
	default:
		d.ok(checkTrigger, "%q can be watched", d.Config.Sidecar.TriggerFile)
	}
}

// health checks whether the address of probes and metrics is free. Beside a running sidecar, which
// is where doctor is mostly run, it is not, and rightly so.
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
		d.ok(checkHealth,
			"%s is served by a running certfetcher; if that is not this container's, each needs "+
				"a HEALTH_ADDR of its own", address)
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
	d.fail(enroll.StageClientConfiguration, checkHealth,
		fmt.Sprintf("HEALTH_ADDR %s cannot be used: %v", address, files.Reason(err)), advice)
}

// servedByCertfetcher tells a certfetcher by its metrics.
func servedByCertfetcher(ctx context.Context, address string) bool {
	_, body, err := program.AskLocal(ctx, address, "/metrics")
	return err == nil && bytes.Contains(body, []byte("\ncertfetcher_build_info{"))
}

// merge checks whether truststores can be merged and keystores copied. What certfetcher publishes
// may be missing yet.
func (d *doctor) merge() {
	if fault := d.faulty("TRUSTSTORES_PATHS", "TRUSTSTORES_PASSWORDS_PATHS",
		"KEYSTORE_SOURCE_PATHS", "KEYSTORE_DESTINATION_PATHS"); fault != "" {
		d.skip(checkMerge, fault+" has a fault")
		return
	}
	if d.Merge == nil {
		return
	}
	var texts []string
	for _, err := range truststore.Check(*d.Merge,
		func(path string) bool { return files.Within(d.Config.Output.Dir, path) }) {
		texts = append(texts, err.Error())
	}
	if len(texts) > 0 {
		d.fail(enroll.StageClientConfiguration, checkMerge, strings.Join(texts, "; "),
			"correct the files or the variables that name them: until then nothing is merged or "+
				"copied, after no publication; "+whoAmI())
		return
	}
	d.ok(checkMerge, "truststores to merge: %d, keystores to copy: %d; they can be read, and the destinations written",
		len(d.Merge.Truststores), len(d.Merge.Keystores))
}
