package manifests

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// rendering is a chart with a set of values: testdata/helm/NAME.values.yaml, and what comes out of it in
// NAME.golden.yaml. The chart is the name's part before the first dot.
type rendering struct {
	name, dir string
	values    chartutil.Values
	cluster   string   // its version of Kubernetes
	serves    []string // kinds of its API, where a chart asks for them
}

// ordinary is the oldest cluster on which the charts run with their defaults.
const ordinary = "v1.30.0"

// older is the oldest cluster on which each chart runs with the value sets for older ones.
var older = map[string]string{"certservice": "v1.26.0", "app": "v1.25.0"}

// charts returns the renderings of all value sets.
func charts(t *testing.T) (all []rendering) {
	t.Helper()
	for _, path := range fixture.Must(filepath.Glob("testdata/helm/*.values.yaml")) {
		text := readFile(t, path)
		values, err := chartutil.ReadValues([]byte(text))
		require.NoError(t, err, path)
		name := strings.TrimSuffix(filepath.Base(path), ".values.yaml")
		chartName, _, _ := strings.Cut(name, ".")
		cluster := ordinary
		if strings.Contains(text, "older cluster") {
			cluster = older[chartName]
		}
		all = append(all, rendering{name, chartDir(chartName), values, cluster, nil})
	}
	require.NotEmpty(t, all)
	return all
}

func chartDir(name string) string {
	if name == "app" {
		return applicationChart
	}
	return deploy + "/helm/" + name
}

// helm dependency build refuses another version.
func TestApplicationChart_dependency_isTheLibrary(t *testing.T) {
	app := fixture.Must(chartutil.LoadChartfile(applicationChart + "/Chart.yaml"))
	library := fixture.Must(chartutil.LoadChartfile(chartDir("certfetcher") + "/Chart.yaml"))
	assert.Equal(t, "library", library.Type)
	assert.Equal(t, library.Name, app.Dependencies[0].Name)
	assert.Equal(t, library.Version, app.Dependencies[0].Version)
}

// render is helm template with a release of the chart's name, for the cluster.
func render(t *testing.T, r rendering) string {
	t.Helper()
	c, files, err := renderFiles(r)
	require.NoError(t, err, r.name)
	var text strings.Builder
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(path, "NOTES.txt") || strings.TrimSpace(files[path]) == "" {
			continue
		}
		text.WriteString("---\n# " + strings.TrimPrefix(path, c.Name()+"/") + "\n" +
			strings.TrimSpace(files[path]) + "\n")
	}
	return text.String()
}

func renderFiles(r rendering) (*chart.Chart, map[string]string, error) {
	c := fixture.Must(loader.Load(r.dir))
	if err := chartutil.ProcessDependenciesWithMerge(c, r.values); err != nil {
		return nil, nil, err
	}
	for _, part := range append(c.Dependencies(), c) { // as helm install does
		want := cmp.Or(part.Metadata.KubeVersion, "*")
		if !chartutil.IsCompatibleRange(want, r.cluster) {
			return nil, nil, fmt.Errorf("chart requires %s, this is Kubernetes %s", want, r.cluster)
		}
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *fixture.Must(chartutil.ParseKubeVersion(r.cluster))
	capabilities.APIVersions = append(slices.Clone(capabilities.APIVersions), r.serves...)
	release := chartutil.ReleaseOptions{Name: c.Name(), Namespace: "default", IsInstall: true, Revision: 1}
	values, err := chartutil.ToRenderValues(c, r.values, release, capabilities)
	if err != nil {
		return nil, nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(c, values)
	return c, files, err
}

func TestCharts_render_asInTheGoldenFiles(t *testing.T) {
	for _, r := range charts(t) {
		t.Run(r.name, func(t *testing.T) {
			golden.File(t, filepath.Join("helm", r.name+".golden.yaml"), render(t, r))
		})
	}
}

func TestCharts_lint_findsNothing(t *testing.T) {
	library := chartutil.Values{"env": map[string]any{"OUTPUT_PATH": "/certs"}}
	all := append(charts(t), rendering{"library", chartDir("certfetcher"), library, ordinary, nil},
		rendering{injectionChart, chartDir(injectionChart), chartutil.Values{"apiVersion": "v1"}, ordinary, nil})
	for _, r := range all {
		cluster := fixture.Must(chartutil.ParseKubeVersion(r.cluster))
		linter := lint.AllWithKubeVersion(r.dir, r.values, "default", cluster)
		for _, message := range linter.Messages {
			assert.EqualError(t, message.Err, "icon is recommended", "%s: %v", r.name, message)
		}
	}
}

func TestCharts_wrongValues_areRefused(t *testing.T) {
	bare := t.TempDir()
	require.NoError(t, os.CopyFS(bare+"/app", os.DirFS(applicationChart)))
	require.NoError(t, os.WriteFile(bare+"/app/values.yaml", []byte("image: app\n"), 0o644))
	var rows []struct {
		Name, Chart, Cluster, Want string
		Values                     chartutil.Values
	}
	readCases(t, "helm/refused.yaml", &rows)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			dir := chartDir(row.Chart)
			if row.Chart == "bare" {
				dir = bare + "/app"
			}
			_, _, err := renderFiles(rendering{row.Name, dir, row.Values, cmp.Or(row.Cluster, ordinary), nil})
			require.ErrorContains(t, err, row.Want)
		})
	}
}

func TestCharts_notes_nameTheSecrets(t *testing.T) {
	_, files, err := renderFiles(rendering{"certservice", chartDir("certservice"), nil, ordinary, nil})
	require.NoError(t, err)
	golden.File(t, "helm/certservice.notes.golden.txt", files["certservice/templates/NOTES.txt"])
}
