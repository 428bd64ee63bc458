package sidecar

import "time"

const (
	// firstPause is how long published files that were just put back are left as they are when they change again; it
	// doubles with each further time, up to longestExpired.
	firstPause = 500 * time.Millisecond
	// calm is how long nothing must have been put back until the pauses begin anew.
	calm = 5 * time.Minute
	// suspicious is how many times in a row are no accident.
	suspicious = 3
)

// pace keeps from fighting with somebody who changes published files whenever they are put back, such as a hook
// that changes their modes: each round has the application told, which is what runs the hook.
type pace struct {
	rounds int       // since it was calm
	last   time.Time // when files were put back
}

// next is the earliest moment to put files back again.
func (p *pace) next() time.Time { return p.last.Add(p.pause()) }

func (p *pace) pause() time.Duration {
	if p.rounds == 0 {
		return 0
	}
	return min(longestExpired, firstPause<<min(p.rounds-1, 20))
}

// restored counts that files were put back. It tells, once, when that happens too often for an accident.
func (p *pace) restored(now time.Time) (suspected bool) {
	if now.Sub(p.last) > calm {
		p.rounds = 0
	}
	p.rounds++
	p.last = now
	return p.rounds == suspicious
}
