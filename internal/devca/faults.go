package devca

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// Faults are ways to misbehave, for testing clients. The zero value has none. Unless said
// otherwise they concern the requests for certificates: ir, cr, kur and p10cr.
type Faults struct {
	// answers a request with status waiting, and this many
	// pollReqs with pollRep, before the certificate
	Waiting     int
	CheckAfter  int64            // seconds, in those pollReps; 0: 1
	Reject      bool             // answers requests, rr too, with status rejection
	FailInfo    []cmp.FailureBit // of that rejection
	Unprotected bool             // answers with an error message that is not protected
	Spoils      []string         // words of spoils: each makes one thing wrong
	Explicit    bool             // grants no implicit confirmation, so that certConf is waited for
	Slow        time.Duration    // waits before it answers any message
	Drop        bool             // closes the connection instead of answering any message
	// closes it after doing what a message of this kind asks, so that only the answer is lost
	DropBodies []cmp.BodyType
}

// maxWaiting bounds the polls that a client is made to do.
const maxWaiting = 1000

// ParseFaults reads a list such as "waiting:2,slow:500ms". The words, in the order of the fields of
// Faults, are: waiting (once unless a number follows), rejection (with the name of a failInfo,
// several joined by "+", or without), unprotected-error, those of spoils, explicit-confirm, slow
// with a duration, and drop, on its own or with the name of the kind of message whose answer is
// lost. All that is wrong is reported at once.
func ParseFaults(text string) (Faults, error) {
	var f Faults
	var faults []error
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		name, argument, given := strings.Cut(word, ":")
		set, known := faultWords[name]
		if _, spoiling := spoils[name]; spoiling {
			set, known = flagFault(func(f *Faults) { f.Spoils = append(f.Spoils, name) }), true
		}
		if !known {
			faults = append(faults, fmt.Errorf("fault %q is not known", word))
		} else if err := set(&f, argument, given); err != nil {
			faults = append(faults, fmt.Errorf("fault %q: %w", word, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return Faults{}, err
	}
	return f, nil
}

// faultWords sets a fault by its word, with the argument after the colon if one is given.
var faultWords = map[string]func(f *Faults, argument string, given bool) error{
	"waiting": func(f *Faults, argument string, given bool) error {
		f.Waiting = 1
		if !given {
			return nil
		}
		polls, err := strconv.Atoi(argument)
		if err != nil || polls < 1 || polls > maxWaiting {
			return fmt.Errorf("want a number of polls from 1 to %d", maxWaiting)
		}
		f.Waiting = polls
		return nil
	},
	"rejection": func(f *Faults, argument string, given bool) error {
		f.Reject = true
		if !given {
			return nil
		}
		for name := range strings.SplitSeq(argument, "+") {
			bit, known := failureBit(name)
			if !known {
				return fmt.Errorf("%q is not the name of a failInfo, such as badCertTemplate", name)
			}
			f.FailInfo = append(f.FailInfo, bit)
		}
		return nil
	},
	"unprotected-error": flagFault(func(f *Faults) { f.Unprotected = true }),
	"explicit-confirm":  flagFault(func(f *Faults) { f.Explicit = true }),
	"slow": func(f *Faults, argument string, _ bool) error {
		var err error
		if f.Slow, err = time.ParseDuration(argument); err != nil || f.Slow <= 0 {
			return errors.New("want a duration such as 2s")
		}
		return nil
	},
	"drop": func(f *Faults, argument string, given bool) error {
		if !given {
			f.Drop = true
			return nil
		}
		for body := cmp.BodyIR; body <= cmp.BodyPollRep; body++ {
			if body.String() == argument {
				f.DropBodies = append(f.DropBodies, body)
				return nil
			}
		}
		return errors.New("want the name of a kind of message, such as certConf")
	},
}

func flagFault(set func(*Faults)) func(*Faults, string, bool) error {
	return func(f *Faults, _ string, given bool) error {
		if given {
			return errors.New("want it without an argument")
		}
		set(f)
		return nil
	}
}

func failureBit(name string) (cmp.FailureBit, bool) {
	for bit := cmp.FailBadAlg; bit <= cmp.FailDuplicateCertReq; bit++ {
		if bit.String() == name {
			return bit, true
		}
	}
	return 0, false
}
