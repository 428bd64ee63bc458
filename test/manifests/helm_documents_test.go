package manifests

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const chartsGuide = deploy + "/helm/README.md"

var (
	helmInstall = regexp.MustCompile(`(?m)^helm install \S+ deploy/helm/(\S+)((?: +--\S+(?: [^-\s]\S*)?)*)$`)
	helmSet     = regexp.MustCompile(`--set (\S+)`)
	yamlBlock   = regexp.MustCompile("(?s)```yaml\n(.*?)```")
)

// What the guide has helm install, with the values that the commands set, is rendered and taken by Kubernetes' types.
func TestChartsGuide_commands_installWhatTheySay(t *testing.T) {
	text := strings.ReplaceAll(readFile(t, chartsGuide), "\\\n", " ")
	commands := helmInstall.FindAllStringSubmatch(text, -1)
	require.Len(t, commands, strings.Count(text, "\nhelm install "))
	issuers := map[string]bool{}
	for _, command := range commands {
		values := chartutil.Values{}
		for _, option := range helmSet.FindAllStringSubmatch(command[2], -1) {
			require.NoError(t, strvals.ParseInto(option[1], values), command[0])
		}
		chartName := strings.TrimPrefix(command[1], "examples/")
		rendered, err := install(fixture.Must(loader.Load(chartDir(chartName))), values)
		require.NoError(t, err, command[0])
		for _, o := range plainOf(t, decode(t, command[0], rendered)) {
			if o["kind"] == "Certificate" {
				issuer := o["spec"].(object)["issuerRef"].(object)
				issuers[issuer["kind"].(string)+" "+issuer["name"].(string)] = true
			}
		}
	}
	for name := range issuers {
		kind, name, _ := strings.Cut(name, " ")
		if kind == "ClusterIssuer" {
			assert.Contains(t, readFile(t, deploy+"/kubernetes/cluster-issuer.yaml"),
				"kind: ClusterIssuer\nmetadata:\n  name: "+name+"\n")
		}
	}
	assert.Len(t, issuers, 3, "the chart's two issuers, and the ClusterIssuer")
}

// The values that the guide shows are what the chart takes, and change what it renders.
func TestChartsGuide_values_areTaken(t *testing.T) {
	standard, err := install(fixture.Must(loader.Load(chartDir("certservice"))), chartutil.Values{})
	require.NoError(t, err)
	blocks := yamlBlock.FindAllStringSubmatch(readFile(t, chartsGuide), -1)
	require.Greater(t, len(blocks), 3)
	for _, block := range blocks {
		values := fixture.Must(chartutil.ReadValues([]byte(block[1])))
		rendered, err := install(fixture.Must(loader.Load(chartDir("certservice"))), values)
		require.NoError(t, err, block[1])
		assert.NotEqual(t, len(standard), len(rendered), block[1])
		decode(t, block[1], rendered)
	}
}
