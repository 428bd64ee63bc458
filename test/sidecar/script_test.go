package sidecar

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/test/chaos"
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
var messages = sync.OnceValue(func() map[string]string {
	texts := map[string]string{}
	for text := range strings.Lines(string(fixture.Must(os.ReadFile("testdata/messages.txt")))) {
		name, text, _ := strings.Cut(strings.TrimSpace(text), ": ")
		texts[name] = text
	}
	return texts
})

// scene is what a script has started, and what that does.
type scene struct {
	t       testing.TB
	ts      *testscript.TestScript
	volume  string
	service *service.Service
	server  *http.Server
	stack   *fixture.Stack
	ejbca   *ejbca.Server
	arrived chan struct{}
	posts   chan string
	sidecar *chaos.Process // the one that commands are about
	all     map[string]*chaos.Process
	kept    map[string]string // the files that were on the volume

	changing  sync.RWMutex // the service's CA
	mutex     sync.Mutex   // of the rest
	does      behaviour    // nil: what it should
	corrected bool         // of a forgetful authority
	leaf      func(leaf *x509.Certificate, issued int)
	signed    int
	asked     []string // paths of the requests
	shown     string   // serial number of the last client certificate
	knows     string   // that of the identity that may update
}

// sceneKey is where a script has its scene.
type sceneKey struct{}

func setUp(env *testscript.Env) error {
	t := env.T().(testing.TB)
	work, free := env.WorkDir, fixture.FreeAddress(t)
	identity := filepath.Join(work, "mtls")
	s := &scene{t: t, volume: filepath.Join(work, "volume"), all: map[string]*chaos.Process{},
		arrived: make(chan struct{}, 100), posts: make(chan string, 100)}
	env.Values[sceneKey{}] = s
	env.Vars = append(env.Vars, fixture.Environment("", identity, s.volume,
		"MODE=sidecar", "HEALTH_ADDR=127.0.0.1:0", "POD_UID=test", "SANS=localhost,127.0.0.1",
		"KEYSTORE_PATH="+identity+"/client.p12", "KEYSTORE_PASSWORD="+fixture.Password,
		"TRUSTSTORE_PATH="+identity+"/truststore.p12", "TRUSTSTORE_PASSWORD="+fixture.Password,
		"RETRY_INITIAL_INTERVAL=5ms", "RETRY_MAX_INTERVAL=20ms", "RETRY_MAX_ELAPSED=300ms",
		"PATH="+chaos.Bin+":"+os.Getenv("PATH"), "PROGRAM="+chaos.Bin+"/certfetcher",
		"SELF="+chaos.Self, "FREE="+free, "PORT="+strings.TrimPrefix(free, "127.0.0.1:"),
		"TESTDATA="+fixture.Must(filepath.Abs("testdata")))...)
	for name, content := range map[string]string{"empty": "", "changeit": "changeit\n",
		"another-secret": "another-secret\n"} {
		chaos.Write(t, filepath.Join(work, name), content)
	}
	return os.Mkdir(identity, 0o700)
}

// commands are those of the scripts, besides testscript's own. Each is described at its function.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){}

func init() {
	for name, do := range map[string]func(s *scene, neg bool, args []string){
		"certservice": startService, "behave": behave, "answer": answer, "life": life, "ca": another, "down": down,
		"arrives": arrives, "asked": asked, "shown": shown, "identity": identity,
		"merge": merge, "serve": serve, "posted": posted, "java": java, "needs": needs,
		"sidecar": start, "on": on, "await": await, "count": count, "renew": renew,
		"signal": signal, "end": end, "ended": ended, "ready": ready, "get": get,
		"metric": metric, "logged": logged, "exits": exits, "says": says, "starts": starts,
		"lock": lock, "serial": serial, "keep": keep, "same": same, "trusted": trusted, "is": is,
		"gone": gone, "ejbca": startEJBCA, "requests": requests, "issued": issued, "fail": fail,
		"offline": offline, "signer": signer,
	} {
		commands[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			s := ts.Value(sceneKey{}).(*scene)
			s.ts = ts
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
	if regexp.MustCompile("(?s)"+pattern).MatchString(text) == neg {
		s.ts.Fatalf("%q must match %q: %t", pattern, text, !neg)
	}
}

func (s *scene) number(text string) int {
	n, err := strconv.Atoi(text)
	s.ts.Check(err)
	return n
}

// eventually waits for what happens at once unless something is wrong.
func (s *scene) eventually(what string, condition func() bool) {
	for end := time.Now().Add(chaos.Deadline); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.ts.Fatalf("it never came to that: %s", what)
		}
	}
}

// needs PROGRAM skips the script where there is no such program, but not in CI.
func needs(s *scene, _ bool, args []string) { fixture.RequirePrograms(s.t, args...) }

// sidecar [-as NAME] [-by SHELL-COMMAND] [NAME=VALUE...] runs certfetcher, or a command in which it is $0. The commands
// that follow are about it.
func start(s *scene, _ bool, args []string) {
	name := "sidecar"
	if len(args) > 1 && args[0] == "-as" {
		name, args = args[1], args[2:]
	}
	cmd := exec.Command(s.ts.Getenv("PROGRAM"))
	if len(args) > 1 && args[0] == "-by" {
		cmd, args = exec.Command("sh", "-c", args[1], cmd.Path), args[2:]
	}
	s.ts.Check(s.ts.Exec("env", "-0"))
	environment := strings.TrimSuffix(s.ts.ReadFile("stdout"), "\x00")
	cmd.Env, cmd.Dir = append(strings.Split(environment, "\x00"), args...), s.ts.MkAbs(".")
	p := chaos.Start(s.t, cmd)
	s.ts.Defer(func() { s.ts.Logf("%s logged:\n%s", name, p.Printed()) })
	s.sidecar, s.all[name] = p, p
}

// on NAME has the commands that follow be about that sidecar.
func on(s *scene, _ bool, args []string) { s.sidecar = s.all[args[0]] }

// message is the text of the log that a name stands for, or the text itself. A word that is not a name would let
// count 0 always pass.
func (s *scene) message(name string) string {
	if text, ok := messages()[name]; ok {
		return text
	}
	if !strings.Contains(name, " ") {
		s.ts.Fatalf("there is no message %q", name)
	}
	return name
}

// await N MESSAGE [CHECK...] waits for the nth line with the message, of which the checks hold; await any MESSAGE
// CHECK..., for a line of which they do.
func await(s *scene, _ bool, args []string) {
	what, message, checks := strings.Join(args, " "), s.message(args[1]), args[2:]
	if args[0] == "any" {
		s.eventually(what, func() bool {
			holds := func(l line) bool { return l.hasAll(checks) }
			return slices.ContainsFunc(lines(s.sidecar, message), holds)
		})
		return
	}
	n := s.number(args[0])
	s.eventually(what, func() bool { return len(lines(s.sidecar, message)) >= n })
	if l := lines(s.sidecar, message)[n-1]; !l.hasAll(checks) {
		s.ts.Fatalf("%s: the line is %v", what, l)
	}
}

// count N MESSAGE wants so many lines with the message.
func count(s *scene, _ bool, args []string) {
	s.equal(s.number(args[0]), len(lines(s.sidecar, s.message(args[1]))), args[1])
}

// signal NAME sends one.
func signal(s *scene, _ bool, args []string) {
	s.ts.Check(s.sidecar.Process.Signal(unix.SignalNum("SIG" + args[0])))
}

// end [SIGNAL] ends the sidecar by SIGTERM, or another signal.
func end(s *scene, _ bool, args []string) {
	signal(s, false, append(args, "TERM"))
	ended(s, false, []string{"0"})
}

// ended CODE waits until it has ended.
func ended(s *scene, _ bool, args []string) {
	s.equal(s.number(args[0]), s.sidecar.Wait(chaos.Deadline), "exit code")
}

// send asks for a path of HEALTH_ADDR.
func (s *scene) send(method, path string) (status int, body string) {
	await(s, false, []string{"1", "serving"})
	address := lines(s.sidecar, messages()["serving"])[0]["address"]
	return chaos.Send(method, fmt.Sprintf("http://%s%s", address, path))
}

// renew asks for a renewal.
func renew(s *scene, _ bool, _ []string) {
	status, body := s.send(http.MethodPost, "/renew")
	s.equal(http.StatusAccepted, status, body)
}

// ready waits until it is ready, and get PATH STATUS [REGEXP] asks HEALTH_ADDR.
func ready(s *scene, _ bool, _ []string) {
	s.eventually("ready", func() bool { status, _ := s.send("GET", "/readyz"); return status == 200 })
}

func get(s *scene, _ bool, args []string) {
	status, text := s.send("GET", args[0])
	s.equal(s.number(args[1]), status, text)
	s.matches(strings.Join(args[2:], " "), text, false)
}

// metric SERIES VALUE waits until the series has the value; + is for any above 0.
func metric(s *scene, _ bool, args []string) {
	value := strings.Replace(regexp.QuoteMeta(args[1]), `\+`, `(0\.0*)?[1-9].*`, 1)
	series := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(args[0]) + " " + value + "$")
	s.eventually(strings.Join(args, " is "), func() bool {
		_, body := s.send("GET", "/metrics")
		return series.MatchString(body)
	})
}

// logged [sidecar|certservice] REGEXP waits until a log has that; ! logged wants a whole log without it.
func logged(s *scene, neg bool, args []string) {
	text, expression := s.sidecar.Printed, regexp.MustCompile("(?s)"+args[1])
	if args[0] == "certservice" {
		text = s.stack.CertService.Logged
	}
	has := func() bool { return expression.MatchString(strings.ReplaceAll(text(), `\"`, `"`)) }
	if !neg {
		s.eventually("logged "+args[1], has)
	} else if has() {
		s.ts.Fatalf("the log has %q", args[1])
	}
}

// exits CODE PROGRAM [ARGUMENT...] runs a program to its end.
func exits(s *scene, _ bool, args []string) {
	code := 0
	if err := s.ts.Exec(args[1], args[2:]...); err != nil {
		exit, is := err.(*exec.ExitError)
		s.equal(true, is, err.Error())
		code = exit.ExitCode()
	}
	s.equal(s.number(args[0]), code, "exit code")
}

// starts runs a sidecar that ends with the code START, if that is set, and says REASON.
func starts(s *scene, _ bool, _ []string) {
	if code := s.ts.Getenv("START"); code != "" {
		exits(s, false, []string{code, "certfetcher"})
		says(s, false, []string{s.ts.Getenv("REASON")})
		says(s, true, []string{"hush"})
	}
}

// lock holds the volume, as another process does.
func lock(s *scene, _ bool, _ []string) {
	volume := fixture.Must(os.Open(s.volume))
	unlock := fixture.Must(files.Lock(volume, "..lock", nil))
	s.ts.Defer(func() { unlock(); volume.Close() })
}

// says REGEXP looks at all that the last program printed, with every run of white space as one space.
func says(s *scene, neg bool, args []string) {
	text := strings.Join(strings.Fields(s.ts.ReadFile("stdout")+s.ts.ReadFile("stderr")), " ")
	s.matches(args[0], strings.ReplaceAll(text, `\"`, `"`), neg)
}

// inspected is what is on the volume.
func (s *scene) inspected() *inspect.Report {
	report, err := inspect.Dir(s.volume)
	s.ts.Check(err)
	return report
}

// serial sets SERIAL, NOT_AFTER, KEY and SANS to those of the certificate on the volume, which must fit its key.
func serial(s *scene, _ bool, _ []string) {
	c := s.inspected().Certificate
	s.equal(true, *c.KeyFits, "the key fits the certificate")
	for name, value := range map[string]string{
		"SERIAL": c.Serial, "NOT_AFTER": fmt.Sprint(c.NotAfter.Unix()), "KEY": c.Key,
		"NAMES": strings.Join(c.SANs, ","),
	} {
		s.ts.Setenv(name, value)
	}
	record := enroll.ReadRecord(s.volume, c.Leaf())
	s.equal(true, record != nil, "the record goes with the certificate")
}

// published is the content of every published file.
func (s *scene) published() map[string]string {
	all := map[string]string{}
	for _, f := range s.inspected().Files {
		all[f.Name] = string(fixture.Must(os.ReadFile(filepath.Join(s.volume, f.Name))))
	}
	return all
}

// keep remembers the published files. same [FILE...] wants those, or all, as they were; ! same, that each has changed.
func keep(s *scene, _ bool, _ []string) { s.kept = s.published() }

func same(s *scene, neg bool, args []string) {
	now := s.published()
	if len(args) == 0 {
		s.equal(s.kept, now, "files")
	}
	for _, name := range args {
		s.equal(!neg, s.kept[name] == now[name], name)
	}
}

// trusted N [FIRST] wants so many certificates in the truststore.
func trusted(s *scene, _ bool, args []string) {
	found := s.inspected().Trusted
	s.equal(s.number(args[0]), len(found), "trusted certificates")
	if len(args) > 1 {
		s.equal(args[1], found[0], "the first one")
	}
}

// is TEXT TEXT compares, gone FILE waits until there is none, and ! gone FILE until there is one.
func is(s *scene, neg bool, args []string) {
	s.equal(!neg, args[0] == args[1], strings.Join(args, ", "))
}

func gone(s *scene, neg bool, args []string) {
	path := s.ts.MkAbs(args[0])
	s.eventually(path, func() bool { _, err := os.Stat(path); return os.IsNotExist(err) != neg })
}
