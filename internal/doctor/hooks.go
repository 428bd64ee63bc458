package doctor

import (
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
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/pki"
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

// signallable asks the kernel by signal 0, which reaches nobody.
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
	d.reachable(ctx, checkNotifyURL, net.JoinHostPort(u.Hostname(), portOf(u)))
}

func (d *doctor) served(ctx context.Context) {
	n := d.Config.Notify
	verify, err := notify.NewVerify(notify.VerifyConfig{
		Address: n.Verify, ServerName: n.VerifyServerName, Dial: d.Dial, Log: slog.New(slog.DiscardHandler),
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

// connects tries whether somebody listens, and reports it when not.
func (d *doctor) connects(ctx context.Context, name, address string) bool {
	limited, cancel := context.WithTimeout(ctx, d.NetworkTimeout)
	defer cancel()
	conn, err := d.Dial(limited, "tcp", address)
	if err != nil {
		d.warn(name, fmt.Sprintf("%s does not connect: %s", address, d.reason(err)), "is the application up, and listening there?")
		return false
	}
	conn.Close()
	return true
}
