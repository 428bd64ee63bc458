package docs

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// binDir holds the programs; --help of each, and of each command, says what there is.
var binDir string

func TestMain(m *testing.M) {
	fixture.RunTests(m, &binDir)
}

// help is what a program, or a command of it, prints about itself.
func help(t *testing.T, program string, command ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(binDir, program), append(command, "--help")...).Output()
	require.NoError(t, err, "%s %s --help", program, strings.Join(command, " "))
	return string(out)
}

var assignment = regexp.MustCompile(`^([A-Z][A-Z0-9_]*)=`)

// commands splits a block into commands, and these into words as a shell does.
func commands(t *testing.T, b block) [][]string {
	t.Helper()
	var list [][]string
	for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
		// Everything is an argument of printf, so that nothing is run.
		out, err := exec.Command("sh", "-c", `printf '%s\n' `+line).Output()
		require.NoError(t, err, "%s: %s", b.place, line)
		if text := strings.TrimSpace(string(out)); text != "" {
			list = append(list, strings.Split(text, "\n"))
		}
	}
	return list
}

// checkCommand holds a command against what it names. CI or a test runs all that needs neither a cluster nor a
// registry; the rest is parsed.
func checkCommand(t *testing.T, place string, words []string) {
	t.Helper()
	for len(words) > 1 && assignment.MatchString(words[0]) {
		name := assignment.FindStringSubmatch(words[0])[1]
		forMake := words[len(words)-1] == "image" &&
			strings.Contains(read(t, "deploy/images/build.sh"), "\n#   "+name+" ")
		assert.True(t, forMake || knownVariable(t, name), "%s: nothing reads %s", place, name)
		words = words[1:]
	}
	checks := map[string]func(t *testing.T, place string, arguments []string){
		"make": checkMake, "go": checkGo, "kubectl": checkKubectl, "helm": checkHelm,
		"docker": checkCompose, "podman-compose": checkCompose, "podman": checkPush,
		"openssl": checkOpenSSL, "curl": checkCurl, "ejbca.sh": checkEJBCA, "certfetcher": checkCertfetcher,
		"certservice": checkServer("certservice"), "devca": checkServer("devca"),
	}
	check, found := checks[words[0]]
	if assert.True(t, found, "%s: no test knows the program %s", place, words[0]) {
		check(t, place, words[1:])
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(content)
}

// readAll joins the files of a pattern.
func readAll(t *testing.T, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	require.NoError(t, err)
	require.NotEmpty(t, paths, pattern)
	var all strings.Builder
	for _, path := range paths {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		all.Write(content)
	}
	return all.String()
}

// assertHolds is assert.Contains for files, which are too long to be shown.
func assertHolds(t *testing.T, text, part, place string) {
	t.Helper()
	assert.True(t, strings.Contains(text, part), "%s: %q is not where it has to be", place, part)
}

// made is the line that makes a target, with variables or without.
func made(target string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^make ` + regexp.QuoteMeta(target) + `( [A-Z]+=\S+)*$`)
}

// A target is run by CI, or the script that it runs is run by the test of the containers.
func checkMake(t *testing.T, place string, targets []string) {
	t.Helper()
	for _, target := range targets {
		if target == "help" || target == "docs" {
			continue // it prints the Makefile's own lines; it is these tests with -update
		}
		recipe := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) +
			`:.*\n((?:\t.*\n)+)`).FindStringSubmatch(read(t, "Makefile"))
		if !assert.NotNil(t, recipe, "%s: the Makefile has no %s", place, target) ||
			made(target).MatchString(read(t, ".ci/run")) {
			continue
		}
		script := regexp.MustCompile(`deploy/\S+\.sh`).FindString(recipe[1])
		assert.True(t, script != "" && strings.Contains(readAll(t, "test/containers/*_test.go"), script),
			"%s: neither CI nor a test runs make %s", place, target)
	}
}

// go test is part of make test, for the packages and names that there are.
func checkGo(t *testing.T, place string, arguments []string) {
	t.Helper()
	if !slices.Contains([]string{"build", "test", "list"}, arguments[0]) {
		assert.Fail(t, "a command of go that no test knows", "%s: %s", place, arguments[0])
	}
	for i, argument := range arguments {
		switch {
		case strings.HasPrefix(argument, "./"):
			assert.NotEmpty(t, readAll(t, filepath.Join(argument, "*_test.go")), place)
		case argument == "-run":
			assertHolds(t, readAll(t, filepath.Join(arguments[slices.IndexFunc(arguments, isPackage)], "*_test.go")),
				"func "+arguments[i+1]+"(", place)
		case argument == "-update":
			assertHolds(t, readAll(t, filepath.Join(arguments[slices.IndexFunc(arguments, isPackage)], "*_test.go")),
				`flag.Bool("update"`, place)
		}
	}
}

func isPackage(argument string) bool { return strings.HasPrefix(argument, "./") }

func checkKubectl(t *testing.T, place string, arguments []string) {
	t.Helper()
	switch {
	case len(arguments) == 3 && arguments[0] == "apply" && arguments[1] == "-k":
		assert.FileExists(t, filepath.Join(root, arguments[2], "kustomization.yaml"), place)
	case len(arguments) == 3 && arguments[0] == "apply" && arguments[1] == "-f":
		assert.FileExists(t, filepath.Join(root, arguments[2]), place)
	case arguments[0] == "create":
		checkKubectlCreate(t, place, arguments)
	case arguments[0] == "exec" && slices.Contains(arguments, "--"):
		inside := arguments[slices.Index(arguments, "--")+1:]
		checkCommand(t, place, append([]string{strings.TrimPrefix(inside[0], "/")}, inside[1:]...))
	case arguments[0] == "logs" && slices.Contains(arguments, "-c"):
		assertHolds(t, readAll(t, "deploy/kubernetes/examples/*.yaml"),
			"- name: "+arguments[slices.Index(arguments, "-c")+1]+"\n", place)
	case arguments[0] == "port-forward" && len(arguments) == 3:
		assertHolds(t, readAll(t, "deploy/kubernetes/examples/*.yaml"), "containerPort: "+arguments[2]+"}", place)
	default:
		assert.Fail(t, "a command of kubectl that no test knows", "%s: %s", place, strings.Join(arguments, " "))
	}
}

// checkKubectlCreate wants a Secret of the template, with its keys, or a namespace of an overlay.
func checkKubectlCreate(t *testing.T, place string, arguments []string) {
	t.Helper()
	if len(arguments) == 3 && arguments[1] == "namespace" {
		assertHolds(t, readAll(t, "deploy/kubernetes/overlays/*/kustomization.yaml"),
			"namespace: "+arguments[2]+"\n", place)
		return
	}
	if slices.Equal(arguments, []string{"create", "secret", "tls"}) { // which the text warns of
		return
	}
	name, files, ok := createdSecret(arguments)
	if !assert.True(t, ok, "%s: a command of kubectl create that no test knows: %s", place,
		strings.Join(arguments, " ")) {
		return
	}
	documents := strings.Split(read(t, "deploy/kubernetes/secrets.yaml"), "\n---\n")
	at := slices.IndexFunc(documents, func(text string) bool { return strings.Contains(text, "\n  name: "+name+"\n") })
	if !assert.GreaterOrEqual(t, at, 0, "%s: secrets.yaml has no %s", place, name) {
		return
	}
	var template struct {
		Type       string
		StringData map[string]string `yaml:"stringData"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(documents[at]), &template))
	assert.ElementsMatch(t, slices.Collect(maps.Keys(template.StringData)), slices.Collect(maps.Keys(files)), place)
	assert.Equal(t, template.Type == "kubernetes.io/tls", slices.Contains(arguments, "--type=kubernetes.io/tls"), place)
}

// What openssl is told is run by a test, whole blocks at a time.
func checkOpenSSL(t *testing.T, place string, _ []string) {
	t.Helper()
	path, _, _ := strings.Cut(place, ":")
	assert.Equal(t, kubernetesReadme, path, "no test runs commands of openssl in other documents")
}

// checkHelm wants one chart, whose values have what is set.
func checkHelm(t *testing.T, place string, arguments []string) {
	t.Helper()
	at := slices.IndexFunc(arguments, func(word string) bool { return strings.HasPrefix(word, "deploy/") })
	if !assert.GreaterOrEqual(t, at, 0, "%s: names no chart", place) ||
		!assert.FileExists(t, filepath.Join(root, arguments[at], "Chart.yaml"), place) {
		return
	}
	for i, word := range arguments {
		if word != "--set" {
			continue
		}
		var value any
		require.NoError(t, yaml.Unmarshal([]byte(read(t, filepath.Join(arguments[at], "values.yaml"))), &value))
		for setting := range strings.SplitSeq(arguments[i+1], ",") {
			key, _, _ := strings.Cut(setting, "=")
			value := value
			for part := range strings.SplitSeq(key, ".") {
				values, _ := value.(map[string]any)
				var found bool
				value, found = values[part]
				assert.True(t, found, "%s: the chart has no value %s", place, key)
			}
		}
	}
}

// The Compose files are held by tests of their own; the one that needs no image of others is brought up.
func checkCompose(t *testing.T, place string, arguments []string) {
	t.Helper()
	at := slices.Index(arguments, "-f")
	if assert.GreaterOrEqual(t, at, 0, "%s: names no file", place) {
		assert.FileExists(t, filepath.Join(root, arguments[at+1]), place)
		assert.Contains(t, []string{"up", "down"}, arguments[at+2], place)
		assertHolds(t, read(t, "deploy/compose/compose_test.go"), `"`+filepath.Base(arguments[at+1])+`"`, place)
	}
}

// What is pushed is an image that deploy/images/build.sh makes.
func checkPush(t *testing.T, place string, arguments []string) {
	t.Helper()
	if assert.Len(t, arguments, 2, place) && assert.Equal(t, "push", arguments[0], place) {
		name, _, tagged := strings.Cut(filepath.Base(arguments[1]), ":")
		assert.True(t, tagged, place)
		assertHolds(t, read(t, "Dockerfile"), "FROM image AS "+name+"\n", place)
	}
}

// What curl asks is the application of the Compose set, or a sidecar whose port is forwarded.
func checkCurl(t *testing.T, place string, arguments []string) {
	t.Helper()
	if path, found := strings.CutPrefix(arguments[len(arguments)-1], "http://localhost:8081"); found {
		assertHolds(t, read(t, "internal/metrics/metrics.go"), `"POST `+path+`"`, place)
		assert.Equal(t, []string{"--request", "POST"}, arguments[:len(arguments)-1], place)
		return
	}
	_, port, found := strings.Cut(arguments[len(arguments)-1], "https://localhost:")
	assert.True(t, found, place)
	assertHolds(t, read(t, "deploy/compose/compose.yaml"), "127.0.0.1:${PORT:-"+port+"}:", place)
}

// EJBCA is in no CI of ours, and the document that has its commands says so. What the script for the Compose set
// has as well, has the same options there.
func checkEJBCA(t *testing.T, place string, arguments []string) {
	t.Helper()
	path, _, _ := strings.Cut(place, ":")
	assertHolds(t, read(t, path), "they were not tried here", place)
	script := strings.ReplaceAll(read(t, "deploy/compose/ejbca-configure.sh"), "\\\n", " ")
	words := 2 // of the command's name: ca getcacert, but config cmp addalias
	if arguments[0] == "config" {
		words = 3
	}
	same := regexp.MustCompile(`ejbca\.sh ` + strings.Join(arguments[:words], " ") + ` .*`).FindString(script)
	for _, argument := range arguments {
		if same != "" && strings.HasPrefix(argument, "--") {
			assert.Contains(t, same, argument+" ", place)
		}
	}
}

// checkCertfetcher wants a command to be one that a script of test/e2e runs, with options that its --help names.
func checkCertfetcher(t *testing.T, place string, arguments []string) {
	t.Helper()
	assertHolds(t, readAll(t, "test/e2e/testdata/script/*.txtar"), "certfetcher "+arguments[0], place)
	var command []string
	if !strings.HasPrefix(arguments[0], "-") {
		command = arguments[:1]
	}
	assertOptions(t, place, help(t, "certfetcher", command...), arguments)
}

func checkServer(program string) func(t *testing.T, place string, arguments []string) {
	return func(t *testing.T, place string, arguments []string) {
		t.Helper()
		assertOptions(t, place, help(t, program), arguments)
	}
}

func assertOptions(t *testing.T, place, help string, arguments []string) {
	t.Helper()
	for _, argument := range arguments {
		argument = strings.Trim(argument, "[]")
		if strings.HasPrefix(argument, "-") && argument != "--help" { // which was just asked for
			assert.Regexp(t, `(^|[^-\w])`+regexp.QuoteMeta(argument)+`($|[^-\w])`, help, place)
		}
	}
	if !strings.HasPrefix(arguments[0], "-") {
		assert.Contains(t, help, " "+arguments[0], place)
	}
}
