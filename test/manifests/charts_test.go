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
	"helm.sh/helm/v3/pkg/lint/support"

	"github.com/certfetcher/certfetcher/test/golden"
)

// rendering is a chart with a set of values: testdata/helm/NAME.values.yaml, and what comes out of it in
// NAME.golden.yaml. The chart is the name's part before the first dot.
type rendering struct {
	name, dir string
	values    chartutil.Values
	cluster   string // its version of Kubernetes
}

// ordinary is the oldest cluster on which the charts run with their defaults.
const ordinary = "v1.30.0"

// older is the oldest cluster on which each chart runs with the value sets for older ones.
var older = map[string]string{"certservice": "v1.26.0", "app": "v1.25.0"}

// charts returns the renderings of all value sets.
func charts(t *testing.T) []rendering {
	t.Helper()
	paths, err := filepath.Glob("testdata/helm/*.values.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	dirs := map[string]string{"certservice": filepath.Join(deploy, "helm/certservice"), "app": applicationChart(t)}
	var all []rendering
	for _, path := range paths {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		values, err := chartutil.ReadValues(content)
		require.NoError(t, err, path)
		name := strings.TrimSuffix(filepath.Base(path), ".values.yaml")
		chartName, _, _ := strings.Cut(name, ".")
		require.Contains(t, dirs, chartName)
		cluster := ordinary
		if strings.Contains(string(content), "older cluster") {
			cluster = older[chartName]
		}
		all = append(all, rendering{name, dirs[chartName], values, cluster})
	}
	return all
}

// applicationChart returns a copy of the example chart with the library in charts/, where helm dependency
// build would put it.
func applicationChart(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(deploy, "helm/examples/app"))))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "charts/certfetcher"),
		os.DirFS(filepath.Join(deploy, "helm/certfetcher"))))
	return dir
}

// The copy above must be what the dependency leads to.
func TestApplicationChart_dependency_isTheLibraryNextToIt(t *testing.T) {
	dir := filepath.Join(deploy, "helm/examples/app")
	app, err := chartutil.LoadChartfile(filepath.Join(dir, "Chart.yaml"))
	require.NoError(t, err)
	require.Len(t, app.Dependencies, 1)
	path := strings.TrimPrefix(app.Dependencies[0].Repository, "file://")
	library, err := chartutil.LoadChartfile(filepath.Join(dir, path, "Chart.yaml"))
	require.NoError(t, err)
	assert.Equal(t, "library", library.Type)
	assert.Equal(t, library.Name+library.Version, app.Dependencies[0].Name+app.Dependencies[0].Version)
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
	c, err := loader.Load(r.dir)
	if err != nil {
		return nil, nil, err
	}
	if err := chartutil.ProcessDependenciesWithMerge(c, r.values); err != nil {
		return nil, nil, err
	}
	for _, part := range append(c.Dependencies(), c) { // as helm install does
		if want := part.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, r.cluster) {
			return nil, nil, fmt.Errorf("chart requires kubeVersion: %s which is incompatible with Kubernetes %s",
				want, r.cluster)
		}
	}
	cluster, err := chartutil.ParseKubeVersion(r.cluster)
	if err != nil {
		return nil, nil, err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *cluster
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
	for _, r := range charts(t) {
		t.Run(r.name, func(t *testing.T) {
			cluster, err := chartutil.ParseKubeVersion(r.cluster)
			require.NoError(t, err)
			assertLint(t, lint.AllWithKubeVersion(r.dir, r.values, "default", cluster))
		})
	}
	t.Run("library", func(t *testing.T) {
		values := chartutil.Values{"env": map[string]any{"OUTPUT_PATH": "/certs"}}
		assertLint(t, lint.AllWithKubeVersion(filepath.Join(deploy, "helm/certfetcher"), values, "default", nil))
	})
}

func assertLint(t *testing.T, linter support.Linter) {
	t.Helper()
	for _, message := range linter.Messages {
		if message.Severity == support.InfoSev && message.Err.Error() == "icon is recommended" {
			continue
		}
		assert.Fail(t, message.Error())
	}
}

func TestCharts_wrongValues_areRefused(t *testing.T) {
	dirs := map[string]string{"certservice": filepath.Join(deploy, "helm/certservice"),
		"app": applicationChart(t), "bare": applicationChart(t)}
	bare := filepath.Join(dirs["bare"], "values.yaml")
	require.NoError(t, os.WriteFile(bare, []byte("image: app\n"), 0o644))
	var rows []struct {
		Name, Chart, Cluster, Want string
		Values                     chartutil.Values
	}
	readCases(t, "helm/refused.yaml", &rows)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			cluster := cmp.Or(row.Cluster, ordinary)
			_, _, err := renderFiles(rendering{row.Name, dirs[row.Chart], row.Values, cluster})
			require.ErrorContains(t, err, row.Want)
		})
	}
}

func TestCharts_notes_nameTheSecrets(t *testing.T) {
	all := charts(t)
	at := slices.IndexFunc(all, func(r rendering) bool { return r.name == "certservice" })
	_, files, err := renderFiles(all[at])
	require.NoError(t, err)
	golden.File(t, "helm/certservice.notes.golden.txt", files["certservice/templates/NOTES.txt"])
}
