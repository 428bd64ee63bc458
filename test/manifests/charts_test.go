package manifests

import (
	"flag"
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
)

var update = flag.Bool("update", false, "rewrite the golden files, and what the schemas take from the programs")

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
	path, local := strings.CutPrefix(app.Dependencies[0].Repository, "file://")
	require.True(t, local)
	library, err := chartutil.LoadChartfile(filepath.Join(dir, path, "Chart.yaml"))
	require.NoError(t, err)
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
			got, golden := render(t, r), filepath.Join("testdata/helm", r.name+".golden.yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), got, "go test -update rewrites it")
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
	certservice, app, bare := filepath.Join(deploy, "helm/certservice"), applicationChart(t), applicationChart(t)
	require.NoError(t, os.WriteFile(filepath.Join(bare, "values.yaml"), []byte("image: app\n"), 0o644))
	nested := func(keys string, value any) chartutil.Values {
		path := strings.Split(keys, ".")
		for _, key := range slices.Backward(path) {
			value = map[string]any{key: value}
		}
		return value.(map[string]any)
	}
	for _, row := range []struct {
		name, dir string
		values    chartutil.Values
		want      string
		cluster   string
	}{
		{"a key that there is not", certservice, nested("replicaCount", 3),
			"additional properties 'replicaCount' not allowed", ordinary},
		{"a variable that certservice has not", certservice, nested("env.HTTP_PORT", "80"),
			"invalid propertyName 'HTTP_PORT'", ordinary},
		{"a variable that certfetcher has not", app, nested("certfetcher.env.COMON_NAME", "a"),
			"invalid propertyName 'COMON_NAME'", ordinary},
		{"a mode that there is not", app, nested("certfetcher.mode", "sidecar"),
			"at '/mode': value must be one of 'init', 'native-sidecar', 'plain-sidecar'", ordinary},
		{"a relative output path", app, nested("certfetcher.env.OUTPUT_PATH", "certs"),
			"at '/env/OUTPUT_PATH': 'certs' does not match pattern '^/.'", ordinary},
		{"a variable that the chart sets itself", app, nested("certfetcher.env.MODE", "init"),
			"invalid propertyName 'MODE'", ordinary},
		{"a required variable that is not set", bare, nested("certfetcher.env.CA_NAME", "RA"),
			"certfetcher.env.COMMON_NAME is required", ordinary},
		{"cert-manager with keystores", certservice,
			chartutil.Values{"certManager": map[string]any{"enabled": true},
				"tls": map[string]any{"format": "keystore"}},
			"certManager.enabled needs tls.format PEM: cert-manager's Secret holds no keystores", ordinary},
		{"a cluster without sleep in preStop", certservice, chartutil.Values{},
			"preStopSleepSeconds needs Kubernetes 1.30 or later, this is v1.29.9: set it to 0", "v1.29.9-gke.1"},
		{"a cluster without native sidecars", app, chartutil.Values{},
			"certfetcher.mode native-sidecar needs Kubernetes 1.29 or later, this is v1.28.0: set plain-sidecar",
			"v1.28.0"},
		{"a cluster that is too old", certservice, nested("preStopSleepSeconds", 0),
			"chart requires kubeVersion: >=1.26.0-0 which is incompatible with Kubernetes v1.25.16", "v1.25.16"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, _, err := renderFiles(rendering{row.name, row.dir, row.values, row.cluster})
			require.ErrorContains(t, err, row.want)
		})
	}
}

func TestCharts_notes_nameTheSecrets(t *testing.T) {
	for _, r := range charts(t) {
		if r.name != "certservice" {
			continue
		}
		_, files, err := renderFiles(r)
		require.NoError(t, err)
		notes := files["certservice/templates/NOTES.txt"]
		assert.Contains(t, notes, "https://oom-cert-service.default.svc:8443")
		assert.Contains(t, notes, "certservice-tls (tls.crt, tls.key, ca.crt)")
		assert.Contains(t, notes,
			"certservice-cmp (cmpServers.json, and each file below /etc/certservice/cmp that it names as trustAnchors)")
	}
}
