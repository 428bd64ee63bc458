package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// TestCluster runs the scripts of testdata in the order of their names: the later ones stand on what the earlier ones
// installed. Each has a copy of deploy and docs in its directory.
func TestCluster(t *testing.T) {
	t.Cleanup(func() {
		objects, _ := exec.Command("kubectl", "get", "pods,events", "--all-namespaces").CombinedOutput()
		require.NoError(t, os.WriteFile(filepath.Join(logs, "objects.txt"), objects, 0o600))
	})
	scripts, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, scripts)
	for _, script := range scripts {
		passed := t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			fixture.RunScripts(t, testscript.Params{Files: []string{script}, Setup: setUp, Cmds: commands})
		})
		if !passed {
			break
		}
	}
}

func setUp(e *testscript.Env) error {
	e.Setenv("KUBECONFIG", filepath.Join(state, "admin.conf"))
	e.Setenv("HOME", state)
	e.Setenv("CA", filepath.Join(state, "ca.pem"))
	e.Setenv("CRDS", filepath.Join(state, "crds"))
	// What the scripts make for each other, such as the identities of mutual TLS.
	e.Setenv("SHARED", filepath.Join(state, "shared"))
	return errors.Join(os.MkdirAll(filepath.Join(state, "shared"), 0o700),
		os.CopyFS(filepath.Join(e.WorkDir, "deploy"), os.DirFS(filepath.Join(root, "deploy"))),
		os.CopyFS(filepath.Join(e.WorkDir, "docs"), os.DirFS(filepath.Join(root, "docs"))))
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"documented": documented, "writes": writes, "starts": starts, "eventually": eventually, "within": within,
	"connects": connects, "enrol": enrol, "crash": crash, "needs": needs,
}

// documented runs the commands of a section of a document, after edits of sed if there are any:
//
//	documented FILE HEADING [EDIT...]
func documented(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	_, section, found := strings.Cut(text, "# "+args[1]+"\n")
	if neg || !found {
		ts.Fatalf("%s has no heading %q", args[0], args[1])
	}
	section, _, _ = strings.Cut(section, "\n##")
	var script strings.Builder
	for _, block := range strings.Split(section, "```sh\n")[1:] {
		commands, _, _ := strings.Cut(block, "```")
		script.WriteString(commands)
	}
	edited := exec.Command("sed", "--regexp-extended", "--expression="+strings.Join(args[2:], ";"))
	edited.Stdin = strings.NewReader(script.String())
	out, err := edited.Output()
	ts.Check(err)
	ts.Logf("%s", out)
	ts.Check(ts.Exec("sh", "-euc", string(out)))
}

// writes writes a file that a document shows under a comment with the file's name:
//
//	writes FILE NAME
func writes(ts *testscript.TestScript, neg bool, args []string) {
	_, block, found := strings.Cut(ts.ReadFile(args[0]), "<!-- "+args[1]+" -->\n```yaml\n")
	content, _, ends := strings.Cut(block, "```\n")
	if neg || !found || !ends {
		ts.Fatalf("%s shows no file %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(content), 0o644))
}

// starts starts a component, which is there from then on.
func starts(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! starts")
	}
	ts.Check(run(nil, args...))
}

// connects makes a TCP connection from a pod with a label; with "!", its packets must get no answer, as those that a
// NetworkPolicy stops. It tries again for a while: new policies are in force after a moment.
//
//	connects NAMESPACE LABEL HOST:PORT
func connects(ts *testscript.TestScript, neg bool, args []string) {
	id, err := exec.Command("kubectl", "get", "pods", "--namespace", args[0], "--selector", args[1],
		"--output", "jsonpath=pod{.items[0].metadata.uid}").Output()
	ts.Check(err)
	host, port, err := net.SplitHostPort(args[2])
	ts.Check(err)
	addresses, err := net.LookupHost(host)
	ts.Check(err)
	ask := []string{"--net", "--target", process(ts, string(id)),
		"timeout", "3", "bash", "-c", "</dev/tcp/" + addresses[0] + "/" + port}
	const unanswered = 124 // of timeout
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		out, err := exec.Command("nsenter", ask...).CombinedOutput()
		var failed *exec.ExitError
		if neg && errors.As(err, &failed) && failed.ExitCode() == unanswered || !neg && err == nil {
			return
		} else if time.Now().After(end) {
			ts.Fatalf("nsenter %s: %v, %s", strings.Join(ask, " "), err, out)
		}
	}
}

// process is one that runs in a cgroup.
func process(ts *testscript.TestScript, group string) string {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	ts.Check(err)
	for _, file := range files {
		if content, _ := os.ReadFile(file); strings.Contains(string(content), "/"+group) { // it may have ended
			return filepath.Base(filepath.Dir(file))
		}
	}
	ts.Fatalf("no process is in %s", group)
	return ""
}

// eventually repeats a command until it succeeds, for a minute and a half; with "!", until it fails.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		if err := ts.Exec(args[0], args[1:]...); (err == nil) != neg {
			return
		} else if time.Now().After(end) {
			ts.Fatalf("not after a minute and a half: %v", err)
		}
	}
}

// within runs a command that must end in time, and prints what it took:
//
//	within DURATION WHAT COMMAND...
func within(ts *testscript.TestScript, neg bool, args []string) {
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	begin := time.Now()
	ts.Check(ts.Exec(args[2], args[3:]...))
	took := time.Since(begin)
	fmt.Printf("%s: %.1f s\n", args[1], took.Seconds())
	if neg || took > limit {
		ts.Fatalf("%s took %s, want at most %s", args[1], took, limit)
	}
}

// needs prints how many lines of a manifest are there for certfetcher: those with a text, and that above them.
func needs(ts *testscript.TestScript, _ bool, args []string) {
	fmt.Printf("lines of YAML that an application needs: %d\n", 1+strings.Count(ts.ReadFile(args[0]), args[1]))
	for _, row := range documentedLines.FindAllStringSubmatch(ts.ReadFile("docs/injection.md"), -1) {
		fmt.Printf("  %s, as its documents have it: %s\n", row[1], row[2])
	}
}

// documentedLines are the rows about others in the table of docs/injection.md.
var documentedLines = regexp.MustCompile(`(?m)^\| \[([^]]+)\]\([^)]+\) \| (\d+)[^|]*\|`)

// load is what "enrol" has running.
var load struct {
	stop context.CancelFunc
	done sync.WaitGroup
	seen *chaos.Latencies
}

// enrol has four clients ask for certificates one after another, as certfetcher does but without a second try, until
// all the requests since then are told to have succeeded:
//
//	enrol begin URL
//	enrol end LEAST
func enrol(ts *testscript.TestScript, neg bool, args []string) {
	switch args[0] {
	case "begin":
		file := func(name string) string { return filepath.Join(ts.Getenv("SHARED"), name) }
		identity, err := tls.LoadX509KeyPair(file("client.crt"), file("client.key"))
		ts.Check(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(fixture.Must(os.ReadFile(file("ca.crt"))))
		var ctx context.Context
		ctx, load.stop = context.WithCancel(context.Background())
		ts.Defer(load.stop)
		load.seen = &chaos.Latencies{}
		client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{identity}, RootCAs: roots}}}
		request := chaos.Enrolment(args[1], "ECDSA-P256")
		for range 4 {
			load.done.Go(func() {
				for err := error(nil); err == nil && ctx.Err() == nil; {
					load.seen.Measure(func() error {
						err = chaos.Ask(client, request, http.StatusOK)
						return err
					})
				}
			})
		}
	case "end":
		load.stop()
		load.done.Wait()
		fmt.Printf("enrolments meanwhile: %s\n", load.seen)
		least, err := strconv.Atoi(args[1])
		ts.Check(err)
		if neg || len(load.seen.Failures) > 0 || len(load.seen.Took) < least {
			ts.Fatalf("%d of %d enrolments failed, want none, and %d at least: %v", len(load.seen.Failures),
				len(load.seen.Took), least, load.seen.Few())
		}
	}
}

// crash kills all processes of a program in all pods at once, as SIGKILL does.
func crash(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	ts.Check(err)
	found := 0
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if program, _, _ := bytes.Cut(line, []byte{0}); string(program) == "/"+args[0] {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			ts.Check(err)
			process, err := os.FindProcess(pid)
			ts.Check(err)
			ts.Check(process.Kill())
			found++
		}
	}
	if neg || found == 0 {
		ts.Fatalf("no pod runs %s", args[0])
	}
}
