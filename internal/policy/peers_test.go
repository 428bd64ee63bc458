package policy

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/test/fixture"
)

type peerDecision struct{ Role, Policy, Is, Source string }

type peerRow struct {
	Asks, Client, Why string
	Ours              struct {
		Allow yaml.Node
		Is    string
	}
	Vault, Approver peerDecision
}

// Our column of testdata/peers.yaml is what is decided; a difference has its reason, and what others
// do has its source.
func TestPeers(t *testing.T) {
	var file struct {
		Sources map[string]string
		Rows    []peerRow
	}
	require.NoError(t, yaml.Unmarshal(fixture.Must(os.ReadFile("testdata/peers.yaml")), &file))
	require.GreaterOrEqual(t, len(file.Rows), 20)
	for _, row := range file.Rows {
		t.Run(row.Asks, func(t *testing.T) {
			assert.Equal(t, row.Ours.Is, decideRow(t, row))
			compared, differs := 0, false
			for _, peer := range []peerDecision{row.Vault, row.Approver} {
				if peer == (peerDecision{}) {
					continue
				}
				compared++
				assert.Contains(t, []string{"allowed", "refused", "ignored", "undecided"}, peer.Is)
				assert.NotEmpty(t, peer.Role+peer.Policy)
				assert.Contains(t, file.Sources[peer.Source], "https://")
				differs = differs || !strings.HasSuffix(row.Ours.Is, peer.Is)
			}
			assert.NotZero(t, compared)
			assert.Equal(t, differs, row.Why != "", "a difference has a reason, and nothing else has")
		})
	}
}

func decideRow(t *testing.T, row peerRow) string {
	t.Helper()
	rule := map[string]any{"name": "rule", "clients": []any{map[string]string{"serviceAccount": "payments/*"}},
		"cas": []string{"RA"}, "operations": []string{"enroll"}, "allow": &row.Ours.Allow}
	d := &desk{t: t, at: time.Unix(1_800_000_000, 0), limits: NewLimits()}
	var err error
	d.policy, err = Parse(fixture.Must(yaml.Marshal(map[string]any{"rules": []any{rule}})))
	require.NoError(t, err)
	d.do("token payments/api")
	if row.Client != "" {
		d.do(row.Client)
	}
	answer, _, _ := strings.Cut(d.do("enroll RA: "+row.Asks), ":")
	decision, _, _ := strings.Cut(answer, " by ")
	return decision
}
