//go:build linux && amd64

package kill

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
)

// exitPublish is the exit code of a run that could not write to its volume.
const exitPublish = 10

// TestErrors_ofEveryCallThatChangesAFile makes each of these calls fail once, as a broken or full disk does. The run
// ends with a whole set, or with the exit code for that and the set before.
func TestErrors_ofEveryCallThatChangesAFile(t *testing.T) {
	s := startService(t)
	injected, codes := 0, map[int]int{}
	kinds := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, syscall.EINTR, syscall.EACCES}
	init := slices.DeleteFunc(slices.Clone(scenes), func(sc scene) bool { return sc.sidecar })
	for _, sc := range init[:chaos.Amount(1, 4, len(init))] {
		st := newStage(t, s, sc)
		st.reset()
		points := len(st.play(func(call) verdict { return verdict{} }).calls)
		for n := 1; n <= points; n += chaos.Amount(max(1, points/3), max(1, points/8), 1) {
			for _, errno := range kinds[:chaos.Amount(1, 2, len(kinds))] {
				if st.fail(n, errno, codes) {
					injected++
				}
				if t.Failed() {
					return
				}
			}
		}
	}
	assert.NotZero(t, codes[exitPublish], "no error was noticed: %v", codes)
	chaos.Record(t, "", injected, codes[0], codes[exitPublish], exitPublish)
}

// fail has one call fail, and tells whether it came to that.
func (s *stage) fail(n int, errno syscall.Errno, codes map[int]int) bool {
	s.t.Helper()
	s.reset()
	var at call
	r := s.play(func(c call) verdict {
		if c.number != n {
			return verdict{}
		}
		at = c
		return verdict{errno: errno}
	})
	if at.number == 0 {
		return false
	}
	where := fmt.Sprintf("%v, call %d, %s %s fails with %v: %s", s.scene, n, at.name, at.path, errno, r.output)
	require.True(s.t, r.status.Exited(), where)
	code := r.status.ExitStatus()
	codes[code]++
	require.Contains(s.t, []int{0, exitPublish}, code, where)
	serial, err := set.Read(s.volume(), s.types)
	switch {
	case code == 0:
		assert.NoError(s.t, err, where)
		assert.NotEqual(s.t, s.old, serial, where)
	case errors.Is(err, set.ErrNothing):
		assert.Empty(s.t, s.old, where)
	case s.mustStayWhole():
		assert.NoError(s.t, err, where)
	}
	s.recover(where)
	return true
}
