package enroll

import (
	"context"
	"time"

	"github.com/certfetcher/certfetcher/output"
)

// attempt is one try to get a certificate in place of the current one.
type attempt struct {
	order
	issuer  issuer
	current *output.Bundle
}

// obtain asks for an update or, where that is not possible, for an enrolment.
func (a attempt) obtain(ctx context.Context) (Obtained, error) {
	changed := a.changed(a.current)
	if a.forced {
		changed = "FORCE_ENROLL is set"
	}
	if changed != "" {
		a.enrolDirectly = false // that was about another request
		a.Log.Info("enrolling", "trigger", changed)
		return a.enrol(ctx)
	}
	leaf, mayEnrol := a.current.Chain[0], a.Config.Renewal.Fallback
	var because string
	var err error
	switch {
	case !a.Now().Before(leaf.NotAfter):
		because = "it expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
		err = fail(StageOther, "the certificate cannot be renewed: %s, and %w", because, errForbidden)
	case a.enrolDirectly && mayEnrol:
		a.Log.Info("enrolling", "trigger", "the CA answered an earlier update with other names than the requested ones")
		obtained, err := a.enrol(ctx)
		if err != nil && refusal(err) != "" && a.Now().Sub(a.foreignAt) >= foreignPause {
			a.enrolDirectly = false // where enrolling is not possible, the CA may have been corrected since
		}
		return obtained, err
	default:
		var obtained Obtained
		if obtained, err = a.update(ctx); err == nil {
			return obtained, nil
		}
		because = a.noWay(ctx, err)
	}
	if because == "" || !mayEnrol {
		return Obtained{}, err
	}
	a.Log.Warn("the certificate cannot be renewed, enrolling again", "error", because)
	return a.enrol(ctx)
}

// foreignPause is how long no update is tried after one that was answered with other names.
const foreignPause = 24 * time.Hour

// noWay says why another try of an update that failed would
// not do better, or comes too late; empty when it may.
func (a attempt) noWay(ctx context.Context, err error) string {
	if foreignNames(err) {
		// each further update would have the CA issue one more certificate for nothing
		a.enrolDirectly, a.foreignAt = true, a.Now()
	}
	because := refusal(err)
	if because == "" && ctx.Err() == nil && a.elsewhere(err) && a.isNearlyExpired(a.current.Chain[0]) {
		because = "less than a tenth of its life is left, and the update fails: " + err.Error()
	}
	return because
}

func (a attempt) update(ctx context.Context) (Obtained, error) {
	bundle, err := a.issuer.update(ctx, a.order, a.current)
	return Obtained{bundle: bundle, how: Updated}, err
}

func (a attempt) enrol(ctx context.Context) (Obtained, error) {
	bundle, err := a.issuer.enrol(ctx, a.order, true)
	if err == nil {
		a.forced = false
	}
	return Obtained{bundle: bundle, how: Enrolled}, err
}
