package main

import (
	"log/slog"
	"os"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/notify"
)

// notifications makes the ways of telling the application that are configured, in the order in which they
// are run: truststores are merged and a command prepares before a signal makes the application load.
func notifications(cfg *config.Fetcher, log *slog.Logger) (notify.Config, config.Faults) {
	c := cfg.Notify
	made := notify.Config{Log: log}
	var faults config.Faults
	add := func(variable string, notifier notify.Notifier, err error) {
		if err != nil {
			faults = append(faults, config.NewFault(variable, "cannot be used: "+err.Error()))
			return
		}
		made.Notifiers = append(made.Notifiers, notifier)
	}
	if c.Exec != "" {
		command, err := notify.ParseCommand(c.Exec)
		add("NOTIFY_EXEC", notify.NewExec(notify.ExecConfig{Command: command, Timeout: c.Timeout, Environ: os.Environ(), Log: log}), err)
	}
	if c.Signal != "" && (c.Process != "" || c.PIDFile != "") { // else config has said so
		number, err := notify.ParseSignal(c.Signal)
		var signal *notify.Signal
		if err == nil {
			signal, err = notify.NewSignal(notify.SignalConfig{Signal: number, Process: c.Process, PIDFile: c.PIDFile})
		}
		add("NOTIFY_SIGNAL", signal, err)
	}
	if c.URL != "" {
		hook, err := notify.NewWebhook(notify.WebhookConfig{URL: c.URL, AllowRemote: c.AllowRemote, Timeout: c.Timeout, UserAgent: userAgent()})
		add("NOTIFY_URL", hook, err)
	}
	if c.Verify != "" {
		verify, err := notify.NewVerify(notify.VerifyConfig{Address: c.Verify, ServerName: c.VerifyServerName, Patience: c.VerifyFor, Log: log})
		if err != nil {
			faults = append(faults, config.NewFault("NOTIFY_VERIFY", "cannot be used: "+err.Error()))
		} else {
			made.Verify = verify
		}
	}
	return made, faults
}
