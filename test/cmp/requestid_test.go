package cmp

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// linesOf are the log lines that have all the attributes.
func linesOf(log string, attributes ...string) (found []map[string]any) {
	for text := range strings.Lines(log) {
		var line map[string]any
		fits := json.Unmarshal([]byte(text), &line) == nil
		for _, a := range attributes {
			name, want, _ := strings.Cut(a, "=")
			value, _ := line[name].(string)
			fits = fits && value != "" && (want == "" || want == value)
		}
		if fits {
			found = append(found, line)
		}
	}
	return found
}

// The way that docs/operations.md shows, with the built programs: from certfetcher's last line, or the
// termination message, to the audit lines of certservice.
func TestRequestID_leadsFromCertfetcherToTheAuditLine(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer broken.Close()
	ca, entry, err := fixture.StartDevCA(binDir, t.TempDir())
	require.NoError(t, err)
	defer ca.Stop()
	beside := maps.Clone(entry)
	beside["caName"], beside["url"] = "FAILING", broken.URL
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(policy, []byte(`rules: [{name: app, clients: [{subject: {commonName: client}}],
		cas: ["*"], operations: [enroll, update, cmp], allow: {dns: [app.example.org], commonName: [app.example.org],
		subject: {organization: [Example], state: [Skane], country: [SE]}}}]`), 0o600))
	s := fixture.Must(fixture.StartCertServiceOf(binDir, t.TempDir(), []map[string]any{entry, beside},
		"POLICY_PATH="+policy))
	defer s.CertService.Stop()
	environment := func(t *testing.T, variables ...string) []string {
		return fixture.Environment(s.URL, s.Dir, t.TempDir()+"/volume", append([]string{"COMMON_NAME=app.example.org",
			"SANS=app.example.org", "KEY_ALGORITHM=ECDSA-P256", "RETRY_INITIAL_INTERVAL=1ms",
			"RETRY_MAX_INTERVAL=1ms", "RETRY_MAX_ELAPSED=1s"}, variables...)...)
	}
	for _, row := range []struct {
		name      string
		variables []string
		exit      int
		outcome   string
		least     int    // audit lines
		also      string // a line of certservice with the same id
	}{
		{"an enrolment", nil, 0, "issued", 1, ""},
		{"a name that the policy does not allow", []string{"SANS=other.example.org"}, 5, "forbidden", 1, ""},
		{"a CA that fails, which is tried again", []string{"CA_NAME=FAILING"}, 5, "failed", 2,
			"the CMP server failed, sending the request once more"},
		{"an enrolment by CMP", []string{"PROTOCOL=cmp", "CMP_URL=" + strings.Replace(s.URL, "/v1/certificate/",
			"/.well-known/cmp/p/"+fixture.CAName, 1), "CMP_TRUST_ANCHORS=" + entry["trustAnchors"].(string),
			"CMP_PROTECTION=signature"}, 0, "issued", 1, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			message := filepath.Join(t.TempDir(), "termination")
			var log strings.Builder
			run := exec.Command(filepath.Join(binDir, "certfetcher"))
			run.Env, run.Stderr = append(environment(t, row.variables...), "TERMINATION_MESSAGE_PATH="+message), &log
			_ = run.Run()
			require.Equal(t, row.exit, run.ProcessState.ExitCode(), log.String())
			lines := linesOf(log.String(), "request_id")
			require.NotEmpty(t, lines, log.String())
			id := lines[0]["request_id"].(string)
			assert.Len(t, linesOf(log.String(), "request_id="+id), len(lines), "one id in a run: %s", log.String())

			var audits []map[string]any
			require.Eventually(t, func() bool {
				audits = linesOf(s.CertService.Logged(), "msg=request", "request_id="+id, "trace_id="+id)
				return len(audits) >= row.least
			}, 10*time.Second, time.Millisecond)
			assert.Equal(t, row.outcome, audits[0]["outcome"])
			if row.also != "" {
				assert.NotEmpty(t, linesOf(s.CertService.Logged(), "msg="+row.also, "request_id="+id))
			}
			if transaction := linesOf(log.String(), "transaction_id"); len(transaction) > 0 {
				assert.Equal(t, transaction[0]["transaction_id"], audits[0]["transaction_id"])
			}
			if row.exit != 0 {
				assert.Equal(t, "certfetcher failed", lines[len(lines)-1]["msg"])
				assert.Contains(t, string(fixture.Must(os.ReadFile(message))),
					" (for the operator of CertService, this is request "+id+")\n")
			}
		})
	}
	t.Run("each renewal has its own", func(t *testing.T) {
		address := fixture.FreeAddress(t)
		sidecar := fixture.Must(fixture.Start(filepath.Join(binDir, "certfetcher"),
			environment(t, "MODE=sidecar", "HEALTH_ADDR="+address)...))
		defer sidecar.Stop()
		ids := func() map[any]bool {
			different := map[any]bool{}
			for _, line := range linesOf(sidecar.Logged(), "msg=published", "request_id") {
				different[line["request_id"]] = true
				require.Len(t, linesOf(s.CertService.Logged(), "msg=request", "outcome=issued",
					"request_id="+line["request_id"].(string)), 1)
			}
			return different
		}
		for n := range 3 {
			require.Eventually(t, func() bool { return len(ids()) == n+1 }, 10*time.Second, 5*time.Millisecond)
			if n < 2 {
				status, body := chaos.Send("POST", "http://"+address+"/renew")
				require.Equal(t, http.StatusAccepted, status, body)
			}
		}
		assert.Equal(t, 2, len(linesOf(sidecar.Logged(), "msg=renewing", "request_id")))
	})
}
