package sidecar

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	schedule "github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const due = 20 * time.Second // tolerance, as certificates know seconds only and take time to come

func TestSidecar_planFollowsTheConfiguration(t *testing.T) {
	for name, row := range map[string]struct {
		variables []string
		policy    schedule.Policy
	}{
		"as it is": {nil, schedule.Policy{At: 2. / 3, Seed: "test"}},
		"RENEW_AT": {[]string{"RENEW_AT=10%"}, schedule.Policy{At: 0.1, Seed: "test"}},
		"RENEW_BEFORE": {[]string{"RENEW_BEFORE=40h"},
			schedule.Policy{At: 2. / 3, Before: 40 * time.Hour, Seed: "test"}},
		"POD_UID": {[]string{"POD_UID=another"}, schedule.Policy{At: 2. / 3, Seed: "another"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, startService(t, 1000*time.Hour, nil), row.variables...)
			got := fixture.Must(time.Parse(time.RFC3339, p.await(1, planned).text("due")))
			c := inspected(t, p.volume).Certificate
			want := row.policy.Due(schedule.Certificate{NotBefore: c.NotBefore, NotAfter: c.NotAfter})
			assert.WithinDuration(t, want, got, due)
			p.end()
		})
	}
}
