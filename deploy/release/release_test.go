package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	helm "helm.sh/helm/v3/pkg/registry"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const documented = "registry.example.org/certfetcher"

// TestRelease makes a signed release twice, in other directories, as other users and at other times, publishes it to a
// registry on loopback, and then runs what docs/releases.md shows.
func TestRelease(t *testing.T) {
	fixture.RequirePrograms(t, "openssl", "podman", "unshare", "git", "make")
	if os.Geteuid() != 0 {
		fixture.SkipWithout(t, "a user who may run containers (root)")
	}
	server := httptest.NewServer(registry.New())
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://") + "/certfetcher"
	dir := t.TempDir()
	tool := filepath.Join(dir, "release")
	shell(t, ".", "go build -o "+tool+" .")
	key := filepath.Join(dir, "release.key")
	shell(t, dir, "openssl ecparam -name prime256v1 -genkey -noout -out release.key")
	shell(t, dir, "echo secret >password && openssl pkcs8 -topk8 -in release.key -out release.p8 "+
		"-passout file:password")

	first, second := checkout(t, filepath.Join(dir, "first")), checkout(t, filepath.Join(dir, "elsewhere", "second"))
	settings := "IMAGE_PREFIX=" + address + "/ "
	shell(t, first, settings+"RELEASE_KEY="+key+" "+tool+" build")
	shell(t, second, "umask 077 && sleep 1 && "+settings+"TZ=Asia/Tokyo RELEASE_KEY="+dir+"/release.p8 "+
		"RELEASE_KEY_PASSWORD_FILE="+dir+"/password unshare --user --map-user=1234 --map-group=1234 -- "+tool+" build")
	release := filepath.Join(first, "dist/release/1.2.3")
	shell(t, dir, "diff -r "+release+" "+filepath.Join(second, "dist/release/1.2.3"))

	configure(t, dir, address)
	t.Run("documented commands", func(t *testing.T) {
		shell(t, first, tool+" publish "+address)
		document := strings.ReplaceAll(string(fixture.Must(os.ReadFile("../../docs/releases.md"))), "\\\n", "")
		ran := 0
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(document, -1) {
			for line := range strings.Lines(block[1]) {
				line = strings.ReplaceAll(strings.TrimSpace(line), documented, address)
				switch name, _, _ := strings.Cut(line, " "); {
				case name == "helm":
					render(t, address, strings.TrimSpace(string(fixture.Must(os.ReadFile(release+"/digests.txt")))))
				case name == "make", name == "go": // they run above, with the tool alone
				case name == "cosign":
					t.Run(line, func(t *testing.T) {
						fixture.RequirePrograms(t, "cosign")
						shell(t, release, line)
					})
				default:
					shell(t, release, line)
				}
				ran++
			}
		}
		assert.Equal(t, 10, ran)
	})
	t.Run("every manifest and the provenance are signed", func(t *testing.T) {
		verify := func(content []byte, signature string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "content"), content, 0o600))
			shell(t, dir, "base64 -d >signature <<<"+signature+" && "+
				"openssl dgst -sha256 -verify "+release+"/release.pub -signature signature content")
		}
		read := func(path string, into any) {
			require.NoError(t, json.Unmarshal(fixture.Must(os.ReadFile(path)), into))
		}
		signed := map[string]int{}
		for _, path := range append(fixture.Must(filepath.Glob(release+"/oci/*/index.json")),
			fixture.Must(filepath.Glob(release+"/oci/charts/*/index.json"))...) {
			layout := filepath.Dir(path)
			blob := func(d v1.Descriptor) string { return filepath.Join(layout, "blobs/sha256", d.Digest.Hex) }
			var index v1.IndexManifest
			read(path, &index)
			for _, d := range index.Manifests {
				digest, signs := strings.CutSuffix(d.Annotations[tagged], ".sig")
				if !signs {
					continue
				}
				var manifest v1.Manifest
				read(blob(d), &manifest)
				payload := fixture.Must(os.ReadFile(blob(manifest.Layers[0])))
				verify(payload, manifest.Layers[0].Annotations["dev.cosignproject.cosign/signature"])
				assert.Contains(t, string(payload),
					`"docker-manifest-digest":"`+strings.Replace(digest, "-", ":", 1)+`"`)
				signed[strings.TrimPrefix(layout, release+"/oci/")]++
			}
		}
		assert.Equal(t, map[string]int{"certfetcher": 3, "certservice": 3, "devca": 3, "charts/certfetcher": 1,
			"charts/certfetcher-injection": 1, "charts/certservice": 1}, signed)
		var envelope struct {
			PayloadType string
			Payload     []byte
			Signatures  []struct{ Sig string }
		}
		read(release+"/provenance.intoto.jsonl", &envelope)
		verify(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(envelope.PayloadType), envelope.PayloadType,
			len(envelope.Payload), envelope.Payload), envelope.Signatures[0].Sig)
	})
	t.Run("images run", func(t *testing.T) {
		for _, program := range programs {
			out := shell(t, release, "podman run --rm --network none "+address+"/"+program+":1.2.3 --version")
			assert.Contains(t, out, "1.2.3")
		}
		got := shell(t, release, "podman image inspect "+address+"/devca:1.2.3 --format "+
			"'{{.Config.User}} {{.Config.Entrypoint}} {{index .Labels \"org.opencontainers.image.title\"}}'")
		assert.Equal(t, "65532:65532 [/devca] devca\n", got)
		got = shell(t, release, "podman image inspect "+address+"/certfetcher:1.2.3 --format '{{.Config.Env}}'")
		assert.Contains(t, got, "GOMAXPROCS=2")
		got = shell(t, release, "podman export $(podman create "+address+"/devca:1.2.3) | tar -t | LC_ALL=C sort")
		assert.Equal(t, "devca\nvar/\nvar/lib/\nvar/lib/devca/\n", got)
	})
	t.Run("tampering is noticed", func(t *testing.T) {
		other := filepath.Join(dir, "other.key")
		shell(t, dir, "openssl ecparam -name prime256v1 -genkey -noout -out other.key")
		shell(t, release, "! openssl dgst -sha256 -verify <(openssl ec -in "+other+" -pubout) "+
			"-signature SHA256SUMS.sig SHA256SUMS")
		shell(t, release, "echo >>charts/certservice-1.2.3.tgz && ! sha256sum --check --quiet SHA256SUMS")
	})
	t.Run("refused", func(t *testing.T) {
		for setting, want := range map[string]string{
			"VERSION=1.2":                        `VERSION has "1.2", want a semantic version`,
			"VERSION=1.2.3-4-gabcdef0":           "want a semantic version",
			"RELEASE_KEY=/missing":               "RELEASE_KEY: open /missing",
			"RELEASE_KEY=LICENSE":                "no private key in PEM",
			"RELEASE_KEY=" + dir + "/release.p8": "want its password in the file that RELEASE_KEY_PASSWORD_FILE names",
		} {
			assert.Contains(t, shell(t, second, "! "+setting+" "+tool+" build 2>&1"), want)
		}
		shell(t, second, "echo >new")
		assert.Contains(t, shell(t, second, "! "+tool+" build 2>&1"), "changes that are not committed")
		shell(t, second, "rm new && git tag -d v1.2.3")
		assert.Contains(t, shell(t, second, "! "+tool+" build 2>&1"), "has no tag: want VERSION=1.2.3")
	})
}

// checkout makes a repository of what stands here, with one commit that has a tag.
func checkout(t *testing.T, into string) string {
	require.NoError(t, os.MkdirAll(into, 0o755))
	shell(t, "../..", "git ls-files -z --cached --others --exclude-standard | "+
		"xargs -0 sh -c 'cp --parents -P \"$@\" \"$0\" 2>/dev/null || true' "+into)
	shell(t, into, "git init -q && git add -A && export GIT_COMMITTER_DATE='1700000000 +0000' && "+
		"GIT_AUTHOR_DATE=$GIT_COMMITTER_DATE git -c user.name=a -c user.email=a@example.org commit -qm a && "+
		"git tag v1.2.3")
	return into
}

// shell runs a line of bash, which has to succeed, and returns what it prints.
func shell(t *testing.T, dir, line string) string {
	t.Helper()
	command := exec.Command("bash", "-euo", "pipefail", "-c", line)
	command.Dir = dir
	command.Stderr = &strings.Builder{}
	out, err := command.Output()
	require.NoError(t, err, "%s\n%s%s", line, out, command.Stderr)
	return string(out)
}

// configure has podman keep everything in dir, and pull from the address without TLS.
func configure(t *testing.T, dir, address string) {
	values := map[string]string{"DIR": dir + "/podman", "RUNTIME": "runc", "CGROUPS": "cgroupfs", "FILES": "1024",
		"PROCESSES": "1024"}
	for _, name := range []string{"containers.conf", "storage.conf"} {
		content := fixture.Must(os.ReadFile("../../test/containers/testdata/" + name))
		text := os.Expand(string(content), func(name string) string { return values[name] })
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	host, _, _ := strings.Cut(address, "/")
	for name, text := range map[string]string{
		".config/containers/policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
		".config/containers/registries.conf": "[[registry]]\nlocation = \"" + host + "\"\ninsecure = true\n",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	t.Setenv("HOME", dir)
	t.Setenv("CONTAINERS_CONF", filepath.Join(dir, "containers.conf"))
	t.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(dir, "storage.conf"))
	t.Setenv("CONTAINERS_REGISTRIES_CONF", filepath.Join(dir, ".config/containers/registries.conf"))
	t.Cleanup(func() { // overlay storage is mounted on itself
		shell(t, dir, "podman rm --all --force && podman rmi --all --force")
		_ = syscall.Unmount(filepath.Join(dir, "podman/root/overlay"), 0)
	})
}

// render pulls the chart of certservice as helm does, and renders it: its image has to be the release's.
func render(t *testing.T, address, digests string) {
	client, err := helm.NewClient(helm.ClientOptPlainHTTP())
	require.NoError(t, err)
	pulled, err := client.Pull(address + "/charts/certservice:1.2.3")
	require.NoError(t, err)
	chart, err := loader.LoadArchive(strings.NewReader(string(pulled.Chart.Data)))
	require.NoError(t, err)
	cluster := chartutil.DefaultCapabilities.Copy()
	cluster.KubeVersion = chartutil.KubeVersion{Version: "v1.30.0", Major: "1", Minor: "30"}
	values, err := chartutil.ToRenderValues(chart, nil, chartutil.ReleaseOptions{Name: "a"},
		cluster)
	require.NoError(t, err)
	manifests, err := engine.Render(chart, values)
	require.NoError(t, err)
	digest := regexp.MustCompile(`/certfetcher/certservice@(\S+)`).FindStringSubmatch(digests)[1]
	assert.Contains(t, fmt.Sprint(manifests), address+"/certservice@"+digest)
	assert.Equal(t, "1.2.3", chart.Metadata.AppVersion)
}
