//go:build upgrade

package upgrade

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// releases are the directories of programs, by the names that scripts have for them.
var releases = map[string]string{}

// current is the name of what is in the working tree.
const current = "current"

func TestMain(m *testing.M) {
	var bin string
	fixture.RunTests(m, &bin, func(string) error {
		releases[current] = bin
		return nil
	})
}

func TestScripts(t *testing.T) {
	list, err := os.ReadFile("testdata/releases.txt")
	require.NoError(t, err)
	for line := range strings.Lines(string(list)) {
		if name, commit, found := strings.Cut(strings.TrimSpace(line), " "); found && name != "#" {
			releases[name] = fixture.Release(t, commit)
		}
	}
	require.Greater(t, len(releases), 1, "testdata/releases.txt names no release")
	cmds := map[string]func(ts *testscript.TestScript, neg bool, args []string){}
	for name, do := range commands {
		cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			do(ts.Value(stageKey{}).(*stage), ts, neg, args)
		}
	}
	fixture.RunScripts(t, testscript.Params{Dir: fixture.Scripts(t, "testdata/*.txtar"), Setup: setUp, Cmds: cmds})
}

// stage is what a script has to do with.
type stage struct {
	t         testing.TB
	devca     *fixture.Process
	stack     *fixture.Stack
	sidecar   *exec.Cmd
	serial    string
	passwords string
}

type stageKey struct{}

func setUp(env *testscript.Env) error {
	t := env.T().(testing.TB)
	s := &stage{t: t}
	env.Values[stageKey{}] = s
	env.Vars = append(env.Vars, fixture.Environment("", filepath.Join(env.WorkDir, "client"),
		filepath.Join(env.WorkDir, "volume"), "MODE=init", "RETRY_MAX_ELAPSED=1s", "PATH="+os.Getenv("PATH"),
		"RENEW_TRIGGER_FILE="+filepath.Join(env.WorkDir, "renew"))...)
	env.Defer(func() {
		s.end()
		if s.stack != nil {
			s.stack.CertService.Stop()
		}
		s.devca.Stop()
	})
	return nil
}

var commands = map[string]func(s *stage, ts *testscript.TestScript, neg bool, args []string){
	"service": service, "certfetcher": run, "sidecar": sidecar, "crash": crash, "await": await,
	"remember": remember, "kept": kept, "renewed": renewed, "onap": onap, "approve": approve, "direct": direct,
}

// bin is the directory of a release's programs.
func bin(ts *testscript.TestScript, release string) string {
	dir, found := releases[release]
	if !found {
		ts.Fatalf("there is no release %q in testdata/releases.txt", release)
	}
	return dir
}

func startCA(s *stage, ts *testscript.TestScript, environment ...string) map[string]any {
	ca, entry, err := fixture.StartDevCA(releases[current], ts.MkAbs("."), environment...)
	ts.Check(err)
	s.devca = ca
	return entry
}

// service RELEASE runs the CertService of a release in place of the one that runs; service down has none. All have the
// same port, files and environment, and the same CA behind them.
func service(s *stage, ts *testscript.TestScript, _ bool, args []string) {
	if s.stack == nil {
		entry := startCA(s, ts)
		stack, err := fixture.StartCertService(bin(ts, args[0]), ts.MkAbs("."), entry)
		ts.Check(err)
		s.stack = stack
		ts.Setenv("REQUEST_URL", stack.URL)
		return
	}
	s.stack.CertService.Stop()
	if args[0] == "down" {
		return
	}
	_, port, _ := strings.Cut(s.stack.CertService.Address(), ":")
	before := s.stack.CertService
	before.Path = filepath.Join(bin(ts, args[0]), "certservice")
	next, err := before.Again("HTTPS_PORT=" + port)
	ts.Check(err)
	s.stack.CertService = next
}

// direct starts a CA that decides when it is told to, and has certfetcher ask it by CMP without a CertService.
func direct(s *stage, ts *testscript.TestScript, _ bool, _ []string) {
	entry := startCA(s, ts, "DEVCA_APPROVAL=true")
	secret := entry["authentication"].(map[string]string)
	for name, value := range map[string]any{"PROTOCOL": "cmp", "CMP_URL": entry["url"],
		"CMP_RECIPIENT": entry["issuerDN"], "CMP_REFERENCE": secret["rv"], "CMP_SECRET": secret["iak"],
		"CMP_TRUST_ANCHORS": entry["trustAnchors"], "KEYSTORE_PATH": "", "TRUSTSTORE_PATH": ""} {
		ts.Setenv(name, value.(string))
	}
}

// approve has that CA decide.
func approve(_ *stage, ts *testscript.TestScript, _ bool, _ []string) {
	url := strings.TrimSuffix(ts.Getenv("CMP_URL"), "/pkix/") + "/approve"
	response, err := http.Post(url, "", nil)
	ts.Check(err)
	response.Body.Close()
	if response.StatusCode/100 != 2 {
		ts.Fatalf("the CA answered %s", response.Status)
	}
}

// environ is the script's environment.
func environ(ts *testscript.TestScript) (variables []string) {
	for _, name := range []string{"PATH", "REQUEST_URL", "CA_NAME", "OUTPUT_PATH", "COMMON_NAME", "ORGANIZATION",
		"STATE", "COUNTRY", "KEY_ALGORITHM", "KEYSTORE_PATH", "TRUSTSTORE_PATH", "TERMINATION_MESSAGE_PATH",
		"RETRY_MAX_ELAPSED",
		"OUTPUT_TYPE", "OUTPUT_LAYOUT", "FORCE_ENROLL", "SANS", "PROTOCOL", "CMP_URL", "CMP_RECIPIENT", "CMP_REFERENCE",
		"CMP_SECRET", "CMP_TRUST_ANCHORS", "P12_PROFILE"} {
		variables = append(variables, name+"="+ts.Getenv(name))
	}
	return variables
}

// certfetcher RELEASE runs the init container of a release; with ! it has to fail.
func run(s *stage, ts *testscript.TestScript, neg bool, args []string) {
	command := exec.Command(filepath.Join(bin(ts, args[0]), "certfetcher"))
	command.Env = environ(ts)
	said, err := command.CombinedOutput()
	ts.Logf("%s", said)
	if (err != nil) != neg {
		ts.Fatalf("certfetcher of the release %s ended with %v", args[0], err)
	}
}

// sidecar RELEASE runs the sidecar of a release in place of the one that runs.
func sidecar(s *stage, ts *testscript.TestScript, _ bool, args []string) {
	s.end()
	s.sidecar = exec.Command(filepath.Join(bin(ts, args[0]), "certfetcher"))
	s.sidecar.Env = append(environ(ts), "MODE=sidecar", "HEALTH_ADDR=127.0.0.1:0",
		"RENEW_TRIGGER_FILE="+ts.Getenv("RENEW_TRIGGER_FILE"))
	log, err := os.Create(ts.MkAbs("sidecar.log"))
	ts.Check(err)
	defer log.Close()
	s.sidecar.Stderr = log
	ts.Check(s.sidecar.Start())
}

func (s *stage) end() {
	if s.sidecar != nil && s.sidecar.ProcessState == nil {
		_ = s.sidecar.Process.Signal(os.Interrupt)
		_ = s.sidecar.Wait()
	}
}

// crash kills the sidecar, which can clean nothing up.
func crash(s *stage, ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(s.sidecar.Process.Kill())
	_ = s.sidecar.Wait()
}

// eventually waits for what a program does in its own time.
func eventually(ts *testscript.TestScript, what string, done func() bool) {
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("not within 20 s: %s; the sidecar said\n%s", what, ts.ReadFile("sidecar.log"))
		}
	}
}

// await TEXT waits until the sidecar has logged a text.
func await(_ *stage, ts *testscript.TestScript, _ bool, args []string) {
	eventually(ts, args[0], func() bool { return strings.Contains(ts.ReadFile("sidecar.log"), args[0]) })
}

// published are the serial number and the passwords on the volume.
func published(ts *testscript.TestScript) (serial, passwords string) {
	program := filepath.Join(releases[current], "certfetcher")
	inspect := exec.Command(program, "inspect", ts.MkAbs("volume"), "-o", "json")
	inspect.Env = []string{}
	out, err := inspect.Output()
	if err != nil {
		return "", ""
	}
	var report struct{ Certificate struct{ Serial string } }
	ts.Check(json.Unmarshal(out, &report))
	for _, name := range []string{"keystore.pass", "truststore.pass"} {
		content, _ := os.ReadFile(ts.MkAbs("volume/" + name)) // where the type has one
		passwords += string(content) + "\n"
	}
	return report.Certificate.Serial, passwords
}

// remember notes what is published, for kept and renewed.
func remember(s *stage, ts *testscript.TestScript, _ bool, _ []string) {
	s.serial, s.passwords = published(ts)
	if s.serial == "" {
		ts.Fatalf("nothing is published")
	}
}

// kept holds when certificate and passwords are those that were remembered.
func kept(s *stage, ts *testscript.TestScript, _ bool, _ []string) {
	if serial, passwords := published(ts); serial != s.serial || passwords != s.passwords {
		ts.Fatalf("the volume has the certificate %s, want %s, and the same passwords", serial, s.serial)
	}
}

// renewed holds as soon as there is another certificate, with the passwords that were remembered; it remembers that
// one. It asks the sidecar for it with "renewed now".
func renewed(s *stage, ts *testscript.TestScript, _ bool, args []string) {
	if len(args) > 0 {
		ts.Check(os.WriteFile(ts.Getenv("RENEW_TRIGGER_FILE"), nil, 0o600))
	}
	var serial, passwords string
	eventually(ts, "another certificate", func() bool {
		serial, passwords = published(ts)
		return serial != "" && serial != s.serial
	})
	if passwords != s.passwords {
		ts.Fatalf("the passwords have changed")
	}
	s.serial = serial
}

// onap TYPE writes the volume again as the ONAP client leaves it.
func onap(s *stage, ts *testscript.TestScript, _ bool, args []string) {
	before := ts.MkAbs("before")
	ts.Check(os.Rename(ts.MkAbs("volume"), before))
	write := fixture.Java(s.t, "", "../java/WriteVolume.java", before, ts.MkAbs("volume"), args[0])
	if out, err := write.CombinedOutput(); err != nil {
		ts.Fatalf("writing a volume: %v\n%s", err, out)
	}
}
