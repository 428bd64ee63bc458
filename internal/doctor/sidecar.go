package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// hooks checks what a sidecar does when the certificate changes. Nothing is run, signalled or posted. An
// application that is not there is a warning, as it may not be up yet.
func (d *doctor) hooks(ctx context.Context) {
	n := d.Config.Notify
	for _, hook := range []struct {
		name, variable, value string
		check                 func()
	}{
		{checkTrigger, "RENEW_TRIGGER_FILE", d.Config.Sidecar.TriggerFile, d.trigger},
		{checkNotifyExec, "NOTIFY_EXEC", n.Exec, d.command},
		{checkNotifySignal, "NOTIFY_SIGNAL", n.Signal, d.signal},
		{checkNotifyURL, "NOTIFY_URL", n.URL, func() { d.webhook(ctx) }},
		{checkNotifyVerify, "NOTIFY_VERIFY", n.Verify, func() { d.served(ctx) }},
	} {
		switch fault := d.faulty(hook.variable); {
		case fault != "":
			d.skip(hook.name, fault+" has a fault")
		case hook.value != "":
			hook.check()
		}
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

// command names the program only: its arguments may hold a secret.
func (d *doctor) command() {
	words, err := notify.ParseCommand(d.Config.Notify.Exec)
	if err != nil {
		d.fail(enroll.StageClientConfiguration, checkNotifyExec, "NOTIFY_EXEC cannot be used: "+err.Error(), "correct NOTIFY_EXEC")
		return
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		var lookup *exec.Error
		if errors.As(err, &lookup) {
			err = files.Reason(lookup.Err)
		}
		d.fail(enroll.StageClientConfiguration, checkNotifyExec, fmt.Sprintf("%q cannot be run: %v", words[0], err),
			"the program has to be in this container's image or on a volume, with the right to execute; scripts need their interpreter, too")
		return
	}
	d.ok(checkNotifyExec, "%q can be run", path)
}

func (d *doctor) signal() {
	n := d.Config.Notify
	number, err := notify.ParseSignal(n.Signal)
	var signal *notify.Signal
	if err == nil {
		signal, err = notify.NewSignal(notify.SignalConfig{Signal: number, Process: n.Process, PIDFile: n.PIDFile})
	}
	if err != nil {
		d.fail(enroll.StageClientConfiguration, checkNotifySignal, "NOTIFY_SIGNAL cannot be used: "+err.Error(), "correct NOTIFY_SIGNAL")
		return
	}
	pids, err := signal.Find()
	if err != nil {
		d.warn(checkNotifySignal, err.Error(), "is the application up? The pod needs shareProcessNamespace: true; a PID file has to be on a volume that this container mounts")
		return
	}
	who := fmt.Sprintf("the process %q", n.Process)
	if n.PIDFile != "" {
		who = fmt.Sprintf("the process of %q", n.PIDFile)
	}
	d.signallable(pids, unix.SignalName(number), who)
}

// signallable asks the kernel by signal 0, which reaches no one.
func (d *doctor) signallable(pids []int, signal, who string) {
	if slices.ContainsFunc(pids, func(pid int) bool { return syscall.Kill(pid, 0) == syscall.EPERM }) {
		d.warn(checkNotifySignal, who+" may not be signalled", "run certfetcher with the application's runAsUser, or give it the capability KILL; "+whoAmI())
		return
	}
	d.ok(checkNotifySignal, "%s can be sent to %s", signal, who)
}

// webhook shows of the URL no more than the host: the rest may hold a secret.
func (d *doctor) webhook(ctx context.Context) {
	n := d.Config.Notify
	u, err := url.Parse(n.URL)
	if err == nil {
		_, err = notify.NewWebhook(notify.WebhookConfig{URL: n.URL, AllowRemote: n.AllowRemote, Timeout: n.Timeout})
	} else {
		err = errors.New("not a URL")
	}
	if err != nil {
		d.fail(enroll.StageClientConfiguration, checkNotifyURL, "NOTIFY_URL cannot be used: "+err.Error(), "correct NOTIFY_URL")
		return
	}
	d.reachable(ctx, checkNotifyURL, net.JoinHostPort(u.Hostname(), client.Port(u)))
}

func (d *doctor) served(ctx context.Context) {
	n := d.Config.Notify
	verify, err := notify.NewVerify(notify.VerifyConfig{
		Address: n.Verify, ServerName: n.VerifyServerName, Dial: d.Dialer.DialContext, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		d.fail(enroll.StageClientConfiguration, checkNotifyVerify, "NOTIFY_VERIFY cannot be used: it "+err.Error(), "correct NOTIFY_VERIFY")
		return
	}
	if !d.connects(ctx, checkNotifyVerify, verify.Address()) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, d.NetworkTimeout)
	defer cancel()
	var names []string
	if template := d.Config.Certificate.Template; template != nil {
		names = template.DNSNames
	}
	leaf, err := verify.Served(limited, names)
	if err != nil {
		d.warn(checkNotifyVerify, fmt.Sprintf("%s shows no certificate: %s", n.Verify, d.reason(err)),
			"is the application up, with TLS, and is NOTIFY_VERIFY its address and protocol?")
		return
	}
	d.ok(checkNotifyVerify, "%s serves the certificate of %q with serial number %s, valid until %s",
		n.Verify, leaf.Subject, pki.Serial(leaf), stamp(leaf.NotAfter))
}

func (d *doctor) reachable(ctx context.Context, name, address string) {
	if d.connects(ctx, name, address) {
		d.ok(name, "%s connects", address)
	}
}

// connects tries whether anything listens, and reports it when not.
func (d *doctor) connects(ctx context.Context, name, address string) bool {
	limited, cancel := context.WithTimeout(ctx, d.NetworkTimeout)
	defer cancel()
	conn, err := d.Dialer.DialContext(limited, "tcp", address)
	if err != nil {
		d.warn(name, fmt.Sprintf("%s does not connect: %s", address, d.reason(err)), "is the application up, and listening there?")
		return false
	}
	conn.Close()
	return true
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
			"correct the files or the variables that name them: until then nothing is merged or copied, after no publication; "+whoAmI())
		return
	}
	d.ok(checkMerge, "truststores to merge: %d, keystores to copy: %d; they can be read, and the destinations written", len(d.Merge.Truststores), len(d.Merge.Keystores))
}
