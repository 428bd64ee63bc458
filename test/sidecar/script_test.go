package sidecar

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/ejbca"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// TestScripts runs the scripts of testdata.
func TestScripts(t *testing.T) {
	fixture.RunScripts(t, testscript.Params{
		Dir: fixture.Scripts(t, "testdata/*.txtar"), Setup: setUp, Cmds: commands,
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			case "namespaces":
				return exec.Command("unshare", "--map-root-user", "true").Run() == nil, nil
			}
			return false, fmt.Errorf("the condition %q is not known", name)
		},
	})
}

// messages are the texts of the log that scripts wait for by a name.
var messages = map[string]string{
	"serving": serving, "planned": planned, "updated": updated, "published": published,
	"again": again, "putback": putBack,
	"told": told, "verified": verified, "renewing": "renewing",
	"failed":  "renewing failed, the certificate stays in use; trying again",
	"expired": "renewing failed, and the certificate has expired; trying again",
	"kept":    "the volume already holds a matching, valid certificate: nothing to do",
	"keptfornow": "the configuration requests another certificate than the one on the volume, " +
		"which stays until the new one is there",
	"accepted":  "certificate accepted with a warning",
	"identity":  "mutual TLS identity replaced",
	"unusable":  "the new mutual TLS files are unusable, keeping the identity in use",
	"absent":    "the application is not there yet, trying again until it is",
	"nottold":   "notifying the application failed",
	"enrolling": "enrolling", "replaced": "file replaced", "signal": "ended by a signal",
	"noputback":  "restoring published files failed; trying again",
	"overlap":    "keeping trusted certificates that the CertService no longer sends",
	"incomplete": "preparing what the application reads failed", "prepared": "prepared what the application reads",
	"newer":      "keeping a newer certificate published by another process",
	"unfinished": "the new certificate is the one on the volume, but its files are not complete; completing them",
	"complete":   "the new files are complete",
	"unwatched":  "the mutual TLS files cannot be watched, and are read before each request instead",
	"unseen": "published files that vanish are not put back before the next renewal, and " +
		"RENEW_TRIGGER_FILE is not seen; SIGHUP and POST /renew still renew now",
	"lessoften": "published files change again and again right after they were restored, so " +
		"they are restored less often: " +
		"does a hook of the application, or another process, write to the volume?",
}

// scene is what a script has started, and what that does.
type scene struct {
	ts      *testscript.TestScript
	service *service.Service
	server  *http.Server
	stack   *fixture.Stack
	ejbca   *ejbca.Server
	arrived chan struct{}
	posts   chan string
	free    func() string // gives an address at which no one else will listen
	sidecar *sidecar      // the one that commands are about
	all     map[string]*sidecar
	kept    map[string]string // the files that were on the volume

	changing  sync.RWMutex // the service's CA
	mutex     sync.Mutex   // of the rest
	does      behaviour    // nil: what it should
	corrected bool         // of a forgetful authority
	leaf      func(leaf *x509.Certificate, issued int)
	signed    int
	noted     int
	asked     []string // paths of the requests
	shown     string   // serial number of the last client certificate
	knows     string   // that of the identity that may update
}

// Errorf and FailNow let a script fail by an assertion.
func (s *scene) Errorf(format string, args ...any) { s.ts.Fatalf(format, args...) }
func (s *scene) FailNow()                          { s.ts.Fatalf("failed") }

// Helper is for assertions that are shared with tests in Go.
func (s *scene) Helper() {}

// sceneKey is where a script has its scene.
type sceneKey struct{}

func setUp(env *testscript.Env) error {
	env.Values[sceneKey{}] = &scene{all: map[string]*sidecar{}, arrived: make(chan struct{}, 100),
		posts: make(chan string, 100),
		free:  func() string { return fixture.FreeAddress(env.T().(testing.TB)) }}
	for _, assignment := range environment("", filepath.Join(env.WorkDir, "mtls"),
		filepath.Join(env.WorkDir, "volume")) {
		name, value, _ := strings.Cut(assignment, "=")
		env.Setenv(name, value)
	}
	env.Setenv("PATH", binDir+":"+os.Getenv("PATH"))
	env.Setenv("PROGRAM", filepath.Join(binDir, "certfetcher"))
	for name, content := range map[string]string{"empty": "", "changeit": "changeit\n",
		"another-secret": "another-secret\n"} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	env.Setenv("FREE", fixture.FreeAddress(env.T().(testing.TB)))
	return os.Mkdir(filepath.Join(env.WorkDir, "mtls"), 0o700)
}

// commands are those of the scripts, besides testscript's own. Each is described at its function.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){}

func init() {
	for name, do := range map[string]func(s *scene, neg bool, args []string){
		"certservice": (*scene).startService, "behave": (*scene).behave, "life": (*scene).life, "ca": (*scene).another,
		"down": (*scene).down, "arrives": (*scene).arrives, "asked": (*scene).assertAsked,
		"shown":    (*scene).assertShown,
		"identity": (*scene).identity, "merge": (*scene).merge, "serve": (*scene).serve,
		"sidecar": (*scene).start, "on": (*scene).on, "await": (*scene).await,
		"count": (*scene).count, "renew": (*scene).renew,
		"signal": (*scene).signal, "end": (*scene).end, "ended": (*scene).ended,
		"ready": (*scene).ready, "get": (*scene).get,
		"metric": (*scene).metric, "logged": (*scene).logged, "exits": (*scene).exits, "says": (*scene).says,
		"serial": (*scene).serial, "keep": (*scene).keep, "same": (*scene).same,
		"trusted": (*scene).trusted, "is": (*scene).is,
		"gone": (*scene).gone, "pass": (*scene).pass, "note": (*scene).note,
		"toldof": (*scene).toldOf, "take": (*scene).take,
		"starts": (*scene).starts, "signer": (*scene).signer,
		"ejbca": (*scene).startEJBCA, "requests": (*scene).requests, "issued": (*scene).issued, "fail": (*scene).fail,
		"offline": (*scene).takeOffline, "posted": (*scene).assertPosted,
		"lock": (*scene).lock,
	} {
		commands[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			s := ts.Value(sceneKey{}).(*scene)
			if s.ts == nil {
				s.ts = ts
			}
			do(s, neg, args)
		}
	}
}

func (s *scene) equal(want, got any, about string) {
	if !assert.ObjectsAreEqual(want, got) {
		s.ts.Fatalf("%s: have %v, want %v", about, got, want)
	}
}

// matches holds a text to a regular expression, or fails.
func (s *scene) matches(pattern, text string, neg bool) {
	expression, err := regexp.Compile("(?s)" + pattern)
	s.ts.Check(err)
	if expression.MatchString(text) == neg {
		s.ts.Fatalf("%q must match %q: %t", pattern, text, !neg)
	}
}

func (s *scene) number(text string) int {
	n, err := strconv.Atoi(text)
	s.ts.Check(err)
	return n
}

// environment is that of the script.
func (s *scene) environment() []string {
	s.ts.Check(s.ts.Exec("env", "-0"))
	return strings.Split(strings.TrimSuffix(s.ts.ReadFile("stdout"), "\x00"), "\x00")
}

// sidecar [-as NAME] [-by SHELL-COMMAND] [NAME=VALUE...] runs certfetcher, or a command in which it is $0. The commands
// that follow are about it.
func (s *scene) start(_ bool, args []string) {
	name := "sidecar"
	if len(args) > 1 && args[0] == "-as" {
		name, args = args[1], args[2:]
	}
	command := exec.Command(filepath.Join(binDir, "certfetcher"))
	if len(args) > 1 && args[0] == "-by" {
		command, args = exec.Command("sh", "-c", args[1], command.Path), args[2:]
	}
	p := newSidecar(s, s.ts.MkAbs("volume"), command)
	p.cmd.Env, p.cmd.Dir = append(s.environment(), args...), s.ts.MkAbs(".")
	s.ts.Check(p.begin())
	s.ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		s.ts.Logf("%s logged:\n%s", name, p.text())
	})
	s.sidecar, s.all[name] = p, p
}

// on NAME has the commands that follow be about that sidecar.
func (s *scene) on(_ bool, args []string) { s.sidecar = s.all[args[0]] }

// message is the text of the log that a name stands for, or the text itself. A word that is not a name would let
// count 0 always pass.
func (s *scene) message(name string) string {
	if text, ok := messages[name]; ok {
		return text
	}
	if !strings.Contains(name, " ") {
		s.ts.Fatalf("there is no message %q", name)
	}
	return name
}

// await N MESSAGE [KEY=VALUE|KEY~REGEXP|KEY<DURATION|KEY>DURATION...] waits for the nth line with the message, and
// holds its attributes to what is given.
func (s *scene) await(_ bool, args []string) {
	l := s.sidecar.await(s.number(args[0]), s.message(args[1]))
	for _, check := range args[2:] {
		at := strings.IndexAny(check, "=~<>")
		key, operator, want := check[:at], check[at], check[at+1:]
		bound, _ := time.ParseDuration(want)
		switch operator {
		case '=':
			s.equal(want, l.text(key), key)
		case '~':
			s.matches(want, l.text(key), false)
		case '<':
			s.equal(true, l.duration(key) <= bound, check)
		case '>':
			s.equal(true, l.duration(key) >= bound, check)
		}
	}
}

// count N MESSAGE wants so many lines with the message.
func (s *scene) count(_ bool, args []string) {
	s.equal(s.number(args[0]), s.sidecar.count(s.message(args[1])), args[1])
}

// toldof REASON SERIAL waits until the application was told of that.
func (s *scene) toldOf(_ bool, args []string) {
	eventually(s, "the application is told", func() bool {
		return slices.ContainsFunc(s.sidecar.lines(told),
			func(l line) bool { return l["trigger"] == args[0] && l["serial"] == args[1] })
	})
}

// renew asks for a renewal, and signal NAME sends one.
func (s *scene) renew(bool, []string) { s.sidecar.renew() }

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM}

func (s *scene) signal(_ bool, args []string) {
	s.ts.Check(s.sidecar.cmd.Process.Signal(signals[args[0]]))
}

// end [SIGNAL] ends the sidecar by SIGTERM, or another signal.
func (s *scene) end(_ bool, args []string) {
	s.sidecar.endBy(append(signalsOf(args), syscall.SIGTERM)[0])
}

func signalsOf(names []string) (list []syscall.Signal) {
	for _, name := range names {
		list = append(list, signals[name])
	}
	return list
}

// ended CODE waits until it has ended by itself.
func (s *scene) ended(_ bool, args []string) {
	<-s.sidecar.ended
	s.equal(s.number(args[0]), s.sidecar.cmd.ProcessState.ExitCode(), "exit code")
}

// ready waits until it is ready, and get PATH STATUS [REGEXP] asks HEALTH_ADDR.
func (s *scene) ready(bool, []string) { s.sidecar.awaitReady() }

func (s *scene) get(_ bool, args []string) {
	status, text := s.sidecar.get(args[0])
	s.equal(s.number(args[1]), status, text)
	s.matches(strings.Join(args[2:], " "), text, false)
}

// metric SERIES VALUE waits until the series has the value; + is for any above 0.
func (s *scene) metric(_ bool, args []string) {
	want, err := strconv.ParseFloat(args[1], 64)
	if args[1] != "+" {
		s.ts.Check(err)
	}
	eventually(s, args[0]+" is "+args[1], func() bool {
		got, ok := s.sidecar.lookup(args[0])
		return ok && (got == want || args[1] == "+" && got > 0)
	})
}

// logged [sidecar|certservice] REGEXP looks at a whole log.
func (s *scene) logged(neg bool, args []string) {
	text := s.sidecar.text
	if args[0] == "certservice" {
		text = s.stack.CertService.Logged
	}
	s.matches(args[1], strings.ReplaceAll(text(), `\"`, `"`), neg)
}

// exits CODE PROGRAM [ARGUMENT...] runs a program to its end.
func (s *scene) exits(_ bool, args []string) {
	code := 0
	if err := s.ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		s.equal(true, errors.As(err, &exit), err.Error())
		code = exit.ExitCode()
	}
	s.equal(s.number(args[0]), code, "exit code")
}

// starts runs a sidecar that ends with the code START, if that is set, and says REASON.
func (s *scene) starts(bool, []string) {
	if code := s.ts.Getenv("START"); code != "" {
		s.exits(false, []string{code, "certfetcher"})
		s.says(false, []string{s.ts.Getenv("REASON")})
		s.says(true, []string{"hush"})
	}
}

// lock holds the volume, as another process does.
func (s *scene) lock(bool, []string) {
	volume, err := os.Open(s.ts.MkAbs("volume"))
	s.ts.Check(err)
	unlock, err := files.Lock(volume, "..lock", nil)
	s.ts.Check(err)
	s.ts.Defer(func() {
		unlock()
		volume.Close()
	})
}

// posted REGEXP takes the next request that came to serve http, or waits for it.
func (s *scene) assertPosted(_ bool, args []string) {
	select {
	case body := <-s.posts:
		s.matches(args[0], body, false)
	case <-time.After(patience):
		s.ts.Fatalf("nothing was posted")
	}
}

// take listens at a port and sets TAKEN to its address.
func (s *scene) take(bool, []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	s.ts.Check(err)
	s.ts.Defer(func() { listener.Close() })
	s.ts.Setenv("TAKEN", listener.Addr().String())
}

// says REGEXP looks at all that the last program printed, with every run of white space as one space.
func (s *scene) says(neg bool, args []string) {
	text := strings.Join(strings.Fields(s.ts.ReadFile("stdout")+s.ts.ReadFile("stderr")), " ")
	s.matches(args[0], strings.ReplaceAll(text, `\"`, `"`), neg)
}

// serial sets SERIAL, NOT_AFTER, KEY and SANS to those of the certificate on the volume, which must fit its key.
func (s *scene) serial(bool, []string) {
	c := inspected(s, s.ts.MkAbs("volume")).Certificate
	s.equal(true, c.KeyFits, "the key fits the certificate")
	for name, value := range map[string]string{
		"SERIAL": c.Serial, "NOT_AFTER": fmt.Sprint(c.NotAfter.Unix()), "KEY": c.Key,
		"NAMES": strings.Join(c.SANs, ","),
	} {
		s.ts.Setenv(name, value)
	}
	s.equal(true, enroll.ReadRecord(s.ts.MkAbs("volume"), c.Leaf()) != nil, "the record goes with the certificate")
}

// keep remembers the published files. same [FILE...] wants those, or all, as they were; ! same, that each has changed.
func (s *scene) keep(bool, []string) { s.kept = snapshot(s, s.ts.MkAbs("volume")) }

func (s *scene) same(neg bool, args []string) {
	now := snapshot(s, s.ts.MkAbs("volume"))
	if len(args) == 0 {
		s.equal(s.kept, now, "files")
	}
	for _, name := range args {
		s.equal(!neg, s.kept[name] == now[name], name)
	}
}

// trusted N [FIRST] wants so many certificates in the truststore.
func (s *scene) trusted(_ bool, args []string) {
	found := inspected(s, s.ts.MkAbs("volume")).Trusted
	s.equal(s.number(args[0]), len(found), "trusted certificates")
	if len(args) > 1 {
		s.equal(args[1], found[0], "the first one")
	}
}

// is TEXT TEXT compares, gone FILE waits until there is none, ! gone FILE until there is one, and pass DURATION waits.
func (s *scene) is(neg bool, args []string) {
	s.equal(!neg, args[0] == args[1], strings.Join(args, ", "))
}

func (s *scene) gone(neg bool, args []string) {
	eventually(s, args[0], func() bool { _, err := os.Stat(s.ts.MkAbs(args[0])); return os.IsNotExist(err) != neg })
}

func (s *scene) pass(_ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	s.ts.Check(err)
	<-time.After(d)
}
