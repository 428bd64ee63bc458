package config

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/output"
)

func (l *loader) sidecar() sidecar.Settings {
	s := sidecar.Settings{
		Enabled: l.Choice("MODE", "init", "sidecar") == "sidecar",
		Policy: sidecar.Policy{
			At: l.share("RENEW_AT"), Before: l.optionalDuration("RENEW_BEFORE", 1, 0), Seed: l.Value("POD_UID"),
		},
		TriggerFile:   l.absolutePath("RENEW_TRIGGER_FILE"),
		HealthAddress: l.healthAddress(l.Value("HEALTH_ADDR")),
	}
	if s.Seed == "" {
		// A pod's host name is its name. When even that is
		// not known, all that is lost is the spread.
		s.Seed, _ = os.Hostname()
	}
	// Its name would be enough: whatever is published under
	// it would be removed, put back, and removed again.
	if name := filepath.Base(s.TriggerFile); filepath.Dir(s.TriggerFile) == filepath.Clean(l.Value("OUTPUT_PATH")) &&
		output.Reserved(name) {
		l.Reject("RENEW_TRIGGER_FILE", "certfetcher publishes files of such names there")
	}
	return s
}

func (l *loader) renewal(sidecar bool) *enroll.Renewal {
	r := &enroll.Renewal{
		Fallback: l.Bool("RENEW_FALLBACK"), ReuseKey: l.Bool("REUSE_KEY"),
		TrustOverlap: l.optionalDuration("TRUST_OVERLAP", 0, -1),
	}
	switch {
	case l.Value("UPDATE_URL") != "":
		l.checkURL("UPDATE_URL", "https")
	case sidecar && !r.Fallback && !derivable(l.Value("REQUEST_URL")):
		l.Add("UPDATE_URL",
			"is not set, and does not follow from a REQUEST_URL that does not end in /certificate/, want "+
				l.Rule("UPDATE_URL"))
	}
	return r
}

// derivable tells whether package client can make the URL for renewals from the one for enrolments.
func derivable(requestURL string) bool {
	u, err := url.Parse(requestURL)
	return err == nil && strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/certificate")
}

// share reads a fraction, a decimal number or a percentage that is between 0 and 1.
func (l *loader) share(name string) float64 {
	text := l.Value(name)
	numerator, denominator, isFraction := strings.Cut(text, "/")
	divisor := 1.0
	if isFraction {
		divisor = number(denominator)
	} else if percent, ok := strings.CutSuffix(text, "%"); ok {
		numerator, divisor = percent, 100
	}
	// Written so that what is not a number is refused as well.
	if share := number(numerator) / divisor; share > 0 && share < 1 {
		return share
	}
	l.Reject(name, "")
	return 0
}

// number reads a plain decimal number; what is not a number is -1, which no rule accepts.
func number(text string) float64 {
	text = strings.TrimSpace(text)
	if strings.Trim(text, "0123456789.") != "" {
		return -1
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return -1
	}
	return n
}

// optionalDuration is duration for a variable that may be
// unset, with the value that stands for that.
func (l *loader) optionalDuration(name string, least, unset time.Duration) time.Duration {
	if l.Value(name) == "" {
		return unset
	}
	return l.Duration(name, least)
}

func (l *loader) absolutePath(name string) string {
	path := l.Value(name)
	if path == "" {
		return ""
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		l.Reject(name, "")
	}
	return filepath.Clean(path)
}

func (l *loader) healthAddress(text string) string {
	if strings.EqualFold(text, "off") {
		return ""
	}
	l.hostPort("HEALTH_ADDR")
	return text
}

func (l *loader) hostPort(name string) {
	_, port, err := net.SplitHostPort(l.Value(name))
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		l.Reject(name, "")
	}
}

func (l *loader) notify() notify.Settings {
	s := notify.Settings{
		Exec:   l.Value("NOTIFY_EXEC"),
		Signal: l.Value("NOTIFY_SIGNAL"), Process: l.Value("NOTIFY_PROCESS"),
		PIDFile: l.absolutePath("NOTIFY_PID_FILE"),
		URL:     l.Value("NOTIFY_URL"), AllowRemote: l.Bool("NOTIFY_URL_ALLOW_REMOTE"),
		Verify: l.Value("NOTIFY_VERIFY"), VerifyServerName: l.Value("NOTIFY_VERIFY_SERVER_NAME"),
		VerifyFor: l.Duration("NOTIFY_VERIFY_FOR", 1), Timeout: l.Duration("NOTIFY_TIMEOUT", 1),
	}
	if fault, conflict := s.Conflict(); conflict {
		l.Add(fault.Variable, fault.Problem)
	}
	return s
}

// NewFault makes the fault of a value that its user finds wrong, and not this package. problem is
// the rest of a sentence that begins with the variable's name.
func NewFault(variable, problem string) Fault {
	for _, v := range Variables {
		if v.Name == variable {
			return Fault{Stage: stages[v.Part], Variable: variable, Problem: problem}
		}
	}
	panic("config: " + variable + " is not a variable")
}
