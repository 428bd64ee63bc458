//go:build linux && amd64

package kill

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// toll counts the kills of enrolments, and what they cost.
type toll struct {
	sync.Mutex
	kills, lost, unconfirmed int
}

// blow is a kill before or after a call.
type blow struct {
	number int // of the call; 0: none
	when   string
}

// TestKill_atEveryCallOfAnEnrolmentByCMP kills certfetcher before and after each call that changes a file or
// sends a message, while it enrols at a CA that answers waiting. The next start brings one certificate,
// confirmed at the CA. Where an answer was lost, at most one transaction stays unconfirmed, and the log names it.
func TestKill_atEveryCallOfAnEnrolmentByCMP(t *testing.T) {
	t.Parallel()
	var sum toll
	points := countCalls(t)
	var blows [][]blow
	for n := 1; n <= points; n += max(1, chaos.Amount(points/8, points/40, 1)) {
		blows = append(blows, []blow{{n, "before"}}, []blow{{n, "after"}})
	}
	enrolAll(t, blows, &sum)
	// The number of calls differs by a few, so that the last ones are not always reached.
	assert.Greater(t, sum.kills, len(blows)*3/4)
	if len(blows) == 2*points {
		assert.NotZero(t, sum.unconfirmed, "no kill came between an answer and its being kept")
	}
	chaos.Record(t, "", sum.kills, points, sum.lost, sum.unconfirmed)
}

// TestKill_twiceDuringAnEnrolmentByCMP kills the run too that continues what the first left.
func TestKill_twiceDuringAnEnrolmentByCMP(t *testing.T) {
	t.Parallel()
	var sum toll
	points := countCalls(t)
	var blows [][]blow
	step := points / chaos.Amount(2, 4, 13)
	for n := step / 2; n <= points; n += step {
		for m := 1; m <= points; m += step {
			blows = append(blows, []blow{{n, "after"}, {m, "after"}})
		}
	}
	enrolAll(t, blows, &sum)
	assert.GreaterOrEqual(t, sum.kills, len(blows))
	chaos.Record(t, "", sum.kills, len(blows), sum.lost, sum.unconfirmed)
}

// countCalls is how many calls an enrolment makes that nobody kills.
func countCalls(t *testing.T) int {
	t.Helper()
	points, err := enrol(t, []blow{{}}, &toll{})
	require.NoError(t, err)
	require.Greater(t, points, 100)
	return points
}

func enrolAll(t *testing.T, blows [][]blow, sum *toll) {
	const atATime = 16 // they wait for the CA most of the time
	chaos.Together(len(blows), atATime, func(i int) {
		if t.Failed() {
			return
		}
		_, err := enrol(t, blows[i], sum)
		assert.NoError(t, err, "kills: %v", blows[i])
	})
	assert.LessOrEqual(t, sum.unconfirmed, sum.lost)
}

// enrol plays an enrolment with a kill in each run, starts certfetcher once more, and looks at what came of it.
// It returns the number of calls of the first run.
func enrol(t *testing.T, blows []blow, sum *toll) (calls int, err error) {
	ca := newAuthority("waiting:1")
	defer ca.server.Close()
	v := chaos.NewVolume(t, fixture.Environment("", "", "", "PROTOCOL=cmp", "CMP_URL="+ca.server.URL+"/pkix/",
		"CMP_RECIPIENT="+pki.DN(ca.Issuing().RawSubject), "CMP_REFERENCE="+devca.DefaultReference,
		"CMP_SECRET="+ca.secret, "KEYSTORE_PATH=", "TRUSTSTORE_PATH=", "RETRY_INITIAL_INTERVAL=10ms"), "symlink")
	kills, lost, log := 0, 0, ""
	for i, b := range blows {
		r := &run{Cmd: v.Program(), root: filepath.Dir(v.Path), sends: true, number: b.number, fate: fate{kill: b.when},
			started: func(int) {}}
		if err := errors.Join(r.trace(), ca.settle()); err != nil {
			return 0, err
		}
		killed := r.status.Signal() == syscall.SIGKILL
		hasLost := killed && ca.hasLost(v)
		kills, lost, log = kills+one(killed), lost+one(hasLost), log+r.output+fmt.Sprintf("then %v\n", r.met)
		err = errors.Join(err, keptBeforeSent(r.seen))
		if !killed && (r.status.ExitStatus() != 0 || 0 < b.number && b.number <= r.calls) {
			// threads do not always take turns alike, so that the number of calls differs, but this one was reached
			err = errors.Join(err, fmt.Errorf("it ended with %d after %d calls", r.status.ExitStatus(), r.calls))
		}
		if hasLost && b.when == "before" && r.met.sends() {
			err = errors.Join(err, errors.New("it was about to send a message, and had not kept the last answer"))
		}
		if i == 0 {
			calls = r.calls
		}
	}
	code, printed := v.Run()
	log += printed
	if code != 0 {
		err = errors.Join(err, fmt.Errorf("the last start ended with %d", code))
	}
	open := ca.unconfirmed()
	if len(open) > lost {
		err = errors.Join(err, fmt.Errorf("%d transactions are not confirmed, %d answers were lost", len(open), lost))
	}
	if err = errors.Join(err, atRest(v, ca), areNamed(open, log)); err != nil {
		return calls, fmt.Errorf("%w\n%s", err, log)
	}
	sum.Lock()
	defer sum.Unlock()
	sum.kills, sum.lost, sum.unconfirmed = sum.kills+kills, sum.lost+lost, sum.unconfirmed+len(open)
	return calls, nil
}

// keptBeforeSent wants a journal that is written to be synced, renamed and its name synced before a message leaves: a
// kill does not show that, but a loss of power would.
func keptBeforeSent(calls []call) error {
	state := "kept"
	for i, c := range calls {
		journal, renames := strings.HasSuffix(c.path, "/..enrolment_tmp"), strings.HasPrefix(c.name, "rename")
		switch {
		case c.name == "write" && journal:
			state = "written"
		case c.name == "fsync" && journal && state == "written":
			state = "synced"
		case renames && state == "synced":
			state = "renamed"
		case c.name == "fsync" && strings.HasSuffix(c.path, "/volume") && state == "renamed":
			state = "kept"
		case (renames || c.sends()) && state != "kept":
			return fmt.Errorf("call %d, %v, comes when the journal is %s only", i+1, c, state)
		}
	}
	return nil
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}

// atRest wants one certificate with its key on the volume, confirmed at the CA, and nothing else.
func atRest(v *chaos.Volume, ca *authority) error {
	serial, err := set.Read(v.Path, v.Types)
	if left := set.LeftBehind(v.Path, v.Layout, v.Types); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %q", left))
	}
	if confirmed := ca.confirmed(); err == nil && (len(confirmed) != 1 || confirmed[0] != serial) {
		err = fmt.Errorf("certificates %v are confirmed, and on the volume is %s", confirmed, serial)
	}
	if n := ca.Stats().Confirmed; err == nil && n != 1 {
		err = fmt.Errorf("the CA counts %d confirmed certificates", n)
	}
	return err
}

// areNamed wants each transaction in a warning of the log, so that an operator finds its certificate.
func areNamed(transactions []string, log string) error {
	for _, id := range transactions {
		named := false
		for line := range strings.Lines(log) {
			named = named || strings.Contains(line, "a CMP transaction is abandoned") && strings.Contains(line, id)
		}
		if !named {
			return fmt.Errorf("transaction %s is not confirmed, and no warning names it", id)
		}
	}
	return nil
}
