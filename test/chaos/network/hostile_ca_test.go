package network

import (
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	hostileCA = "HOSTILE"
	// chartLimit is what the chart gives certservice, in KiB; GOMEMLIMIT is set as it sets it.
	chartLimit = 128 << 10
)

// startWithHostile starts devca, and certservice with it and a CA at another address.
func startWithHostile(t testing.TB, address string, environment ...string) *fixture.Stack {
	t.Helper()
	dir := t.TempDir()
	authority, server, err := fixture.StartDevCA(bin, dir)
	require.NoError(t, err)
	hostile := maps.Clone(server)
	hostile["caName"], hostile["url"] = hostileCA, "http://"+address+"/pkix/"
	s, err := fixture.StartCertServiceOf(bin, dir, []map[string]any{server, hostile},
		append([]string{"GOMEMLIMIT=110MiB"}, environment...)...)
	return with(t, s, err, authority)
}

// tinyTexts is a whole message just below the largest size, of many small parts: what is read of it takes several times
// as much memory.
func tinyTexts(t testing.TB) flood {
	t.Helper()
	texts := make(cmp.PKIFreeText, 340_000)
	for i := range texts {
		texts[i] = "x"
	}
	message := cmp.PKIMessage{
		Header: cmp.PKIHeader{PVNO: cmp.PVNO2, Sender: cmp.DirectoryName(nil), Recipient: cmp.DirectoryName(nil)},
		Body: cmp.PKIBody{Type: cmp.BodyError,
			Content: &cmp.ErrorMsgContent{StatusInfo: cmp.Rejection("no"), ErrorDetails: texts}}}
	der, err := message.Marshal()
	require.NoError(t, err)
	require.Less(t, len(der), cmp.MaxMessageSize)
	require.Greater(t, len(der), cmp.MaxMessageSize*9/10)
	return flood{kind: "answers with many tiny texts", how: "close", first: fmt.Sprintf(
		"%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", head(cmp.MediaType), len(der), der)}
}

// TestHostileCA_floods has as many requests at a hostile CA as certservice allows. Each ends in time, certservice stays
// within the chart's memory, and the other CA's requests succeed.
func TestHostileCA_floods(t *testing.T) {
	const timeout = 3 * time.Second // REQUEST_TIMEOUT
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	var current atomic.Pointer[flood]
	go answerWith(listener, func() flood { return *current.Load() })
	s := startWithHostile(t, listener.Addr().String(), "REQUEST_TIMEOUT="+timeout.String())
	// A PKIMessage whose outer SEQUENCE claims 2 GiB, and OCTET STRINGs in it.
	all := floods(t, "application/pkixcmp", "\x30\x84\x7f\xff\xff\xff", "\x04\x81\xff"+strings.Repeat("x", 255))
	all = append([]flood{tinyTexts(t)}, all...)
	askers := newAskers(t, s, 4)
	pid := s.CertService.Process.Pid
	highest, longest, asked := 0, time.Duration(0), 0
	kinds := 0
	for i, f := range all {
		if !chaos.Amount(i%9 == 7, i%3 == 1 || i == 0, true) {
			continue
		}
		kinds++
		current.Store(&f)
		require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0), "resetting the peak")
		var group sync.WaitGroup
		var mu sync.Mutex
		took, failures := time.Duration(0), map[string]int{}
		for n := range chaos.Amount(128, 160, 160) {
			asked++
			group.Go(func() {
				begin := time.Now()
				err := askers[n%len(askers)].enroll(t.Context(), host(s.URL), hostileCA, timeout+slack, nil, nil)
				mu.Lock()
				defer mu.Unlock()
				took = max(took, time.Since(begin))
				if assert.Error(t, err, f.kind) {
					failures[err.Error()]++
				}
			})
		}
		// The other CA has to answer meanwhile.
		for range 5 {
			err := askers[0].enroll(t.Context(), host(s.URL), fixture.CAName, slack, stubborn, nil)
			assert.NoError(t, err, f.kind)
		}
		group.Wait()
		peak := chaos.Memory(pid, "VmHWM")
		t.Logf("%s: %d MiB, %.1f s, %v", f.kind, peak>>10, took.Seconds(), failures)
		require.NotZero(t, peak, "certservice has ended: %s", s.CertService.Logged())
		assert.Less(t, peak, chartLimit, "%s: KiB of resident memory", f.kind)
		assert.Less(t, took, timeout+slack, f.kind)
		highest, longest = max(highest, peak), max(longest, took)
	}
	code, printed := chaos.Run(t, fetcher(host(s.URL), s.Dir, t.TempDir()))
	assert.Zero(t, code, printed)
	chaos.Record(t, "", kinds, asked, highest>>10, timeout, longest.Seconds())
}
