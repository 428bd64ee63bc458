package sidecar

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/service"
)

// command runs certfetcher to its end, and returns its exit code and all that it printed, with every run of white
// space as one space.
func command(t *testing.T, variables []string, arguments ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "certfetcher"), arguments...)
	cmd.Env = variables
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); !exited {
		require.NoError(t, err)
	}
	require.NoError(t, ctx.Err(), "%v has not ended", arguments)
	return cmd.ProcessState.ExitCode(), strings.Join(strings.Fields(string(out)), " ")
}

// Whatever keeps a sidecar from starting, or makes in vain what it does later, fails the doctor as well.
func TestDoctor_badEnvironment_fails(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { taken.Close() })
	pem := filepath.Join(s.Dir, "truststore.pem")

	const works = -1 // a sidecar starts, and is not run here
	for sentence, row := range map[string]struct {
		variables           []string // {volume}, {dir} and {url} stand for those of the sidecar
		prepare             func(t *testing.T, volume string)
		check, start, found int // exit codes of --check, of a start and of doctor
		text                string
	}{
		"paths to merge that are none": {
			variables: []string{"TRUSTSTORES_PATHS=relative.jks:/x", "TRUSTSTORES_PASSWORDS_PATHS="}, check: 1, start: 1, found: 1,
			text: `TRUSTSTORES_PATHS has "relative.jks" as entry 1, want the absolute path of a file`,
		},
		"merging into what is published": {
			variables: []string{"TRUSTSTORES_PATHS={volume}/..data/truststore.p12:" + pem, "TRUSTSTORES_PASSWORDS_PATHS=:"}, check: 1, start: 1, found: 1,
			text: "which would be changed by merging, and put back by the sidecar",
		},
		"merging what is not there": {
			variables: []string{"TRUSTSTORES_PATHS={dir}/none.jks:" + pem, "TRUSTSTORES_PASSWORDS_PATHS=:"}, start: works, found: 1,
			text: "failed postprocess truststore",
		},
		"merging with a password that is wrong": {
			variables: []string{"TRUSTSTORES_PATHS={dir}/truststore.jks:{volume}/truststore.p12", "TRUSTSTORES_PASSWORDS_PATHS={dir}/client-key.pem:{volume}/truststore.pass"},
			start:     works, found: 1, text: "wrong password",
		},
		"a health address that is taken": {
			variables: []string{"HEALTH_ADDR=" + taken.Addr().String()}, start: 1, found: 1,
			text: "HEALTH_ADDR " + taken.Addr().String() + " cannot be used: address already in use -> another program of this pod listens there",
		},
		"a health address of another machine": {
			variables: []string{"HEALTH_ADDR=192.0.2.1:8081"}, start: 1, found: 1, text: "HEALTH_ADDR 192.0.2.1:8081 cannot be used: cannot assign requested address",
		},
		"a command with half quotes":       {variables: []string{"NOTIFY_EXEC='x"}, check: 1, start: 1, found: 1, text: "NOTIFY_EXEC cannot be used: the quote ' at byte 1 is not closed"},
		"a signal that there is not":       {variables: []string{"NOTIFY_SIGNAL=FOO", "NOTIFY_PROCESS=x"}, check: 1, start: 1, found: 1, text: `unknown signal "FOO"`},
		"a URL to tell elsewhere":          {variables: []string{"NOTIFY_URL=http://192.0.2.1/"}, check: 1, start: 1, found: 1, text: "NOTIFY_URL cannot be used"},
		"an address to look at that is no": {variables: []string{"NOTIFY_VERIFY=app"}, check: 1, start: 1, found: 1, text: "NOTIFY_VERIFY cannot be used"},
		"a country that there is not":      {variables: []string{"COUNTRY=Sweden"}, check: 2, start: 2, found: 2, text: "COUNTRY"},
		"a password file that is missing": {
			variables: []string{"KEYSTORE_PASSWORD=", "KEYSTORE_PASSWORD_FILE={dir}/none"}, check: 9, start: 9, found: 9,
			text: "correct the variable, or the file or Secret that it leads to",
		},
		"a wrong password":             {variables: []string{"KEYSTORE_PASSWORD=x"}, check: 9, start: 9, found: 9, text: "is not opened by KEYSTORE_PASSWORD"},
		"a CA that is not known":       {variables: []string{"CA_NAME=XX"}, start: 5, found: 5, text: `"XX" is not known`},
		"a path that is none of a CA":  {variables: []string{"REQUEST_URL={url}/v2/certificate/"}, start: 5, found: 5, text: "the path of REQUEST_URL leads nowhere"},
		"a CertService not there":      {variables: []string{"REQUEST_URL=https://127.0.0.1:1/v1/certificate/"}, start: 6, found: 6, text: "connection refused"},
		"renewals at a port not there": {variables: []string{"UPDATE_URL=https://127.0.0.1:1/v1/certificate-update/"}, start: works, found: 6, text: "127.0.0.1:1 does not connect: connection refused"},
		"renewals at a path not there": {
			variables: []string{"UPDATE_URL={url}/v1/update/"}, start: works, found: 5,
			text: "the path of UPDATE_URL leads nowhere: GET /v1/update/RA is answered by 404 Not Found: There is nothing at this path -> correct the path in UPDATE_URL; that of a CertService ends in /v1/certificate-update/",
		},
		"a group that is not there": {variables: []string{"OUTPUT_GROUP=no-such-group"}, check: 1, start: 1, found: 1, text: "no-such-group"},
		"a volume that is a file": {
			prepare: func(t *testing.T, volume string) { require.NoError(t, os.WriteFile(volume, nil, 0o600)) }, start: 10, found: 10, text: "is a file",
		},
		"a directory with the name of a file": {
			prepare: func(t *testing.T, volume string) { require.NoError(t, os.MkdirAll(volume+"/keystore.p12", 0o755)) }, start: works, found: 0,
			text: "certfetcher moves it aside",
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			volume := filepath.Join(t.TempDir(), "volume")
			if row.prepare != nil {
				row.prepare(t, volume)
			}
			variables := environment(s.URL, s.Dir, volume)
			place := strings.NewReplacer("{volume}", volume, "{dir}", s.Dir, "{url}", strings.TrimSuffix(s.URL, "/v1/certificate/"))
			for _, v := range row.variables {
				variables = append(variables, place.Replace(v))
			}
			code, text := command(t, variables, "doctor")
			assert.Equal(t, row.found, code)
			assert.Contains(t, text, row.text)
			code, _ = command(t, variables, "--check")
			assert.Equal(t, row.check, code)
			if row.start != works {
				code, text = command(t, variables)
				assert.Equal(t, row.start, code, text)
			}
		})
	}
}

// The doctor is mostly run beside the sidecar that it is about.
func TestDoctor_besideARunningSidecar_findsNothing(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	app := t.TempDir()
	cacerts := filepath.Join(app, "ca.pem")
	require.NoError(t, os.WriteFile(cacerts, service.CertificatesPEM(s.Transport.Root), 0o644))
	volume := filepath.Join(t.TempDir(), "volume")
	merge := []string{
		"UPDATE_URL=" + strings.Replace(s.URL, "/certificate/", "/certificate-update/", 1),
		"TRUSTSTORES_PATHS=" + cacerts + ":" + volume + "/truststore.p12", "TRUSTSTORES_PASSWORDS_PATHS=:" + volume + "/truststore.pass",
		"KEYSTORE_SOURCE_PATHS=" + volume + "/keystore.p12", "KEYSTORE_DESTINATION_PATHS=" + app + "/new/server.p12",
	}
	variables := append(environment(s.URL, s.Dir, volume), merge...)

	// What is merged is not there before the first fetch.
	code, text := command(t, variables, "doctor")
	assert.Equal(t, 0, code, text)
	assert.Contains(t, text, "ok health address 127.0.0.1:0 is free")
	assert.Contains(t, text, "ok postprocess truststores to merge: 2, keystores to copy: 1; they can be read, and the destinations written")
	assert.Contains(t, text, "/v1/certificate-update/ leads to a CertService that accepts us")

	p := run(t, volume, variables)
	address := p.await(1, serving).text("address")
	p.await(1, planned)
	code, text = command(t, append(variables, "HEALTH_ADDR="+address), "doctor")
	assert.Equal(t, 0, code, text)
	assert.Contains(t, text, "ok health address "+address+" is served by a running certfetcher")
	assert.Contains(t, text, "failed: 0")
}
