package manifests

import (
	"errors"
	"flag"
	"fmt"
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
	"helm.sh/helm/v3/pkg/chartutil"
	corev1 "k8s.io/api/core/v1"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var (
	binaries         string // the directory of the built programs
	applicationChart string // that of the example chart
)

// The example chart has the library that it depends on in charts/, where helm dependency build would put it.
func TestMain(m *testing.M) {
	fixture.RunTests(m, &binaries, func(scratch string) error {
		const app = deploy + "/helm/examples/app"
		file := fixture.Must(chartutil.LoadChartfile(app + "/Chart.yaml"))
		library := filepath.Join(app, strings.TrimPrefix(file.Dependencies[0].Repository, "file://"))
		applicationChart = scratch + "/app"
		return errors.Join(os.CopyFS(applicationChart, os.DirFS(app)),
			os.CopyFS(applicationChart+"/charts/certfetcher", os.DirFS(library)))
	})
}

// binary returns the path of a built program.
func binary(name string) string { return filepath.Join(binaries, name) }

var variable = regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+)(?: \(.*\))?\n((?:      .*\n)+)`)

// variables returns what --help shows, with the _FILE twins of secrets, and what the command postprocess has besides:
// the name of each, and the last line of its help, which says what it takes.
func variables(t *testing.T, program string) map[string]string {
	t.Helper()
	help := fixture.Must(exec.Command(binary(program), "--help").Output())
	if program == "certfetcher" {
		more := fixture.Must(exec.Command(binary(program), "postprocess", "--help").Output())
		help = append(help, more...)
	}
	rules := map[string]string{}
	for _, match := range variable.FindAllStringSubmatch(string(help), -1) {
		lines := strings.Split(strings.TrimSpace(match[2]), "\n")
		rules[match[1]] = strings.TrimSpace(lines[len(lines)-1])
		if first, _, _ := strings.Cut(match[0], "\n"); strings.HasSuffix(first, "secret)") {
			rules[match[1]+"_FILE"] = ""
		}
	}
	require.Greater(t, len(rules), 10)
	return rules
}

// environment returns a container's variables; those that come from elsewhere have an empty value.
func (p pod) environment(t *testing.T, c corev1.Container) map[string]string {
	t.Helper()
	all := map[string]string{}
	for range c.EnvFrom {
		maps.Copy(all, p.configMap())
	}
	for _, variable := range c.Env {
		_, twice := all[variable.Name]
		assert.False(t, twice, "%s: %s has %s twice", p.place, c.Name, variable.Name)
		all[variable.Name] = variable.Value
	}
	return all
}

func TestPods_variables_areTheProgramsOwn(t *testing.T) {
	known := map[string]map[string]string{}
	for _, name := range []string{"certfetcher", "certservice"} {
		known[name] = variables(t, name)
		known[name]["GOMEMLIMIT"] = "" // the Go runtime's
	}
	for p, c := range containers(t) {
		for variable := range p.environment(t, c) {
			if program(c) != "" {
				assert.Contains(t, known[program(c)], variable, "%s: %s", p.place, c.Name)
			}
		}
	}
}

// The programs themselves say whether the values are right, and whether the files are what they take.
func TestPods_configuration_passesTheProgramsOwnCheck(t *testing.T) {
	mounted := newFiles(t)
	checked := map[string]int{}
	for p, c := range containers(t) {
		name := program(c)
		if name == "" || len(c.Args) > 0 { // postprocess has no such check
			continue
		}
		checked[name]++
		check := exec.Command(binary(name), "--check")
		for variable, value := range p.environment(t, c) {
			for _, m := range c.VolumeMounts {
				if dir := mounted.of(t, p, m.Name); dir != "" {
					value = strings.Replace(value, m.MountPath, dir, 1)
				}
			}
			check.Env = append(check.Env, variable+"="+value)
		}
		output, err := check.CombinedOutput()
		assert.NoError(t, err, "%s: %s: %s", p.place, c.Name, output)
	}
	assert.GreaterOrEqual(t, checked["certfetcher"], 7)
	assert.GreaterOrEqual(t, checked["certservice"], 4)
}

// chartsOwn are the variables that a chart sets by itself, from other values.
var chartsOwn = map[string]*regexp.Regexp{
	"certservice": regexp.MustCompile(`^(KEYSTORE|TRUSTSTORE|TOKEN|CLIENT_CRL)_|` +
		`^(ADMIN_CLIENTS|CLIENT_CREDENTIALS|CMP_SERVERS_PATH|HTTPS_PORT|METRICS_ADDR|POLICY_PATH)$`),
	"certfetcher": regexp.MustCompile(`^(KEYSTORE|TRUSTSTORE)_(KEY_)?(PATH|PASSWORD)|` +
		`^(MODE|HEALTH_ADDR|POD_UID|TOKEN_PATH)$`),
}

var environmentOfSchema = regexp.MustCompile(`(?s)("env": \{.*?"properties": )\{.*?\n      \}`)

// kinds are the kinds of a value of which YAML loses nothing, where text is what the program takes: 0640 is read as
// 416, and NO as false.
func kinds(rule string) string {
	switch {
	case rule == "true or false":
		return `["string", "boolean"]`
	case strings.Contains(rule, "octal"):
	case regexp.MustCompile(`\bnumber\b|^milliseconds|; 0 for|^a share of`).MatchString(rule):
		return `["string", "number"]`
	}
	return `"string"`
}

// What a chart's user may set is what the program has; helm refuses the rest.
func TestCharts_schemas_nameTheProgramsVariables(t *testing.T) {
	for program, own := range chartsOwn {
		path := filepath.Join(deploy, "helm", program, "values.schema.json")
		content := readFile(t, path)
		var list []string
		for name, rule := range variables(t, program) {
			if name == "OUTPUT_PATH" {
				list = append(list, `        "OUTPUT_PATH": {"type": "string", "pattern": "^/."}`)
			} else if !own.MatchString(name) {
				list = append(list, fmt.Sprintf(`        %q: {"type": %s}`, name, kinds(rule)))
			}
		}
		slices.Sort(list)
		want := environmentOfSchema.ReplaceAllString(content, "${1}{\n"+strings.Join(list, ",\n")+"\n      }")
		current(t, path, want)
	}
}

// current holds the content of a file that is made from others; -update writes it.
func current(t *testing.T, path, want string) {
	t.Helper()
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	assert.True(t, readFile(t, path) == want, "%s is out of date: make docs", path)
}
