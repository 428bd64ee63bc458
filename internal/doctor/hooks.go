package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/notify"
)

// hooks checks what a sidecar does when the certificate changes. Nothing is run, signalled or posted. An
// application that is not there is a warning, as it may not be up yet.
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
		finding.Found += ": " + d.reason(finding.Err)
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
		d.warn(checkTrigger, fmt.Sprintf("the directory %q: %v", dir, files.Reason(err)), "mount the volume that the trigger file appears on, or correct RENEW_TRIGGER_FILE")
	case !info.IsDir():
		d.warn(checkTrigger, fmt.Sprintf("%q is a file, want a directory", dir), "correct RENEW_TRIGGER_FILE")
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		d.warn(checkTrigger, "the trigger file cannot be removed when it has been seen: "+statText(dir, info), "give the right to write to certfetcher's user or group; "+whoAmI())
	default:
		d.ok(checkTrigger, "%q can be watched", d.Config.Sidecar.TriggerFile)
	}
}
