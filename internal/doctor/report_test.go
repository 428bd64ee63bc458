package doctor_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/golden"
	"github.com/certfetcher/certfetcher/test/service"
)

// sample has a check of each status, and texts that have to be wrapped and escaped.
var sample = doctor.Report{Checks: []doctor.Check{
	{Name: "variables", Status: doctor.OK, Found: "every variable is usable"},
	{Name: "file system", Status: doctor.Warning, Found: "ext4: private keys are written to a disk",
		Advice: "keep private keys in memory: emptyDir with medium: Memory"},
	{Name: "server trust", Status: doctor.Failed, ExitCode: 6,
		Found: `does not chain to TRUSTSTORE_PATH: the server sends 2 certificates, the last ` +
			`issued by "CN=Root <A&B>"; the truststore has "CN=Other"`,
		Advice: `add the certificate of the CA "CN=Root <A&B>" to the truststore, if this is ` +
			`your CertService, and not somebody else's`},
	{Name: "ca name", Status: doctor.Skipped, Found: "because the server is not trusted"},
	{Name: "writing", Status: doctor.Failed, ExitCode: 10, Found: "read-only file system",
		Advice: "mount the volume without readOnly"},
}}

func TestReport_WriteText(t *testing.T) {
	got := text(t, sample)
	golden.File(t, "report.txt", got)
	for line := range strings.Lines(got) {
		assert.LessOrEqual(t, utf8.RuneCountInString(line), 101, line)
	}
}

func TestReport_WriteJSON(t *testing.T) {
	var out strings.Builder
	require.NoError(t, sample.WriteJSON(&out))
	golden.File(t, "report.json", out.String())
}

func TestReport_WriteJSON_withoutChecks_hasAnEmptyList(t *testing.T) {
	var out strings.Builder
	require.NoError(t, doctor.Report{}.WriteJSON(&out))
	assert.JSONEq(t, `{"status": "ok", "exitCode": 0, "checks": []}`, out.String())
}

// Scripts may rely on these names and keys.
func TestRun_json_hasTheDocumentedNamesInOrder(t *testing.T) {
	_, o := start(t, service.Options{})
	report, _ := run(t, o)
	var out strings.Builder
	require.NoError(t, report.WriteJSON(&out))
	var document struct {
		Status   string
		ExitCode int
		Checks   []struct {
			Name, Status, Found, Advice string
			ExitCode                    int
		}
	}
	decoder := json.NewDecoder(strings.NewReader(out.String()))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&document))
	var names []string
	for _, c := range document.Checks {
		names = append(names, c.Name)
	}
	golden.File(t, "names.txt", strings.Join(names, "\n")+"\n")
}

func TestReport_ExitCode_isThatOfTheFirstFailure(t *testing.T) {
	assert.Equal(t, 6, sample.ExitCode())
	assert.Equal(t, doctor.Failed, sample.Status())
	assert.Equal(t, 0, doctor.Report{Checks: sample.Checks[:2]}.ExitCode(), "warnings are no failure")
	assert.Equal(t, doctor.Warning, doctor.Report{Checks: sample.Checks[:2]}.Status())
}
