package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestRefusal_andRetry_ofWhatAnUpdateMayMeet(t *testing.T) {
	status := func(code int, message string) error {
		return &client.StatusError{StatusCode: code, Message: message, RetryAfter: time.Minute}
	}
	for name, row := range map[string]struct {
		err       error
		anew      bool // an enrolment may do better
		permanent bool
		after     time.Duration
		wasted    bool
	}{
		"not found":          {status(404, ""), true, true, time.Minute, false},
		"method not allowed": {status(405, ""), true, true, time.Minute, false},
		"bad request": {status(400, "Wrong certificate signing request (CSR) format"),
			true, true, time.Minute, false},
		"forbidden":         {status(403, ""), true, true, time.Minute, false},
		"headers too large": {status(431, ""), true, true, time.Minute, false},
		"not trusted":       {status(401, ""), false, true, time.Minute, false},
		"not allowed by the policy": {status(403, "Not allowed by the policy: key: want RSA-3072+"),
			true, true, time.Minute, false},
		"a token for another audience": {&client.StatusError{StatusCode: 401, Reason: "audience"},
			false, true, 0, false},
		"a token that has expired, and is replaced soon": {&client.StatusError{StatusCode: 401, Reason: "expired"},
			false, false, 0, false},
		"a token that is missing for a moment": {&client.TokenError{Err: errors.New("x")}, false, false, 0, false},
		"a token that is a directory": {&client.TokenError{Err: errors.New("x"), Permanent: true},
			false, true, 0, false},
		"too many requests": {status(429, ""), false, false, time.Minute, false},
		"request time-out":  {status(408, ""), false, false, time.Minute, false},
		"refused by the CA": {status(500, "CMPv2 server returned following error: rejection"),
			true, false, time.Minute, false},
		"the CA is not reached": {status(500, "Exception occurred during call to cmp client: connection refused"),
			false, false, time.Minute, false},
		"not implemented": {status(501, ""), true, false, time.Minute, false},
		"overloaded":      {status(503, ""), false, false, time.Minute, false},
		"a web page":      {&client.AnswerError{Reason: "it is HTML"}, true, false, 0, false},
		"no connection":   {&client.ConnectionError{Err: errors.New("x")}, false, false, 0, false},
		"no trust": {&client.ConnectionError{Err: errors.New("unknown CA"), Permanent: true}, false,
			true, 0, false},
		"interrupted":             {fmt.Errorf("x: %w", context.Canceled), false, false, 0, false},
		"no update URL":           {errors.New("deriving the update URL"), true, false, 0, false},
		"a wrong certificate":     {&Error{Stage: StageVerification, Err: errors.New("x")}, false, true, 0, true},
		"unreadable certificates": {&Error{Stage: StageConversion, Err: errors.New("x")}, false, true, 0, true},
		"other names":             {&Error{Stage: StageVerification, Err: errNames}, true, true, 0, true},
		"other names, says the CertService": {
			&client.StatusError{StatusCode: 500, Message: "x", Reason: client.ReasonNames}, true, true, 0, true},
		"a volume that is read-only": {&Error{Stage: StageFile, Err: errors.New("x")}, true, false, 0, false},
		"forbidden to enrol anew":    {errForbidden, true, true, 15 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := fmt.Errorf("asking: %w", row.err)
			assert.Equal(t, row.anew, refusal(err) != "", refusal(err))
			assert.Equal(t, Hint{Permanent: row.permanent, Wasted: row.wasted, RetryAfter: row.after}, HintOf(err))
		})
	}
}

// anchors are roots by name, made once.
func anchors(t *testing.T, names ...string) map[string]*x509.Certificate {
	t.Helper()
	made := map[string]*x509.Certificate{}
	for _, name := range names {
		authority := fixture.Must(fixture.NewCA(name))
		made[name] = authority.Root
	}
	return made
}

func TestOverlap_merge(t *testing.T) {
	root := anchors(t, "old", "new", "other")
	now := time.Now()
	before := func(end time.Duration, trusted ...*x509.Certificate) *output.Bundle {
		return &output.Bundle{Chain: []*x509.Certificate{{NotAfter: now.Add(end)}}, Trusted: trusted}
	}
	list := func(names ...string) (certs []*x509.Certificate) {
		for _, name := range names {
			certs = append(certs, root[name])
		}
		return certs
	}

	t.Run("by default until the leaf that it came with expires", func(t *testing.T) {
		var o overlap
		assert.Equal(t, list("new", "old"), o.merge(list("new"), before(time.Hour, list("old")...), -1, now))
		// The next leaf lives longer, which is not the old root's leaf.
		assert.Equal(t, list("new", "old"), o.merge(list("new"),
			before(3*time.Hour, list("new", "old")...), -1, now.Add(59*time.Minute)))
		assert.Equal(t, list("new"), o.merge(list("new"),
			before(3*time.Hour, list("new", "old")...), -1, now.Add(time.Hour)))
		assert.Empty(t, o.until)
	})
	t.Run("for the configured time", func(t *testing.T) {
		var o overlap
		assert.Equal(t, list("new", "old"), o.merge(list("new"), before(time.Hour, list("old")...), 2*time.Hour, now))
		assert.Equal(t, list("new", "old"), o.merge(list("new"),
			before(time.Hour, list("new", "old")...), 2*time.Hour, now.Add(119*time.Minute)))
		assert.Equal(t, list("new"), o.merge(list("new"), before(time.Hour, list("new", "old")...),
			2*time.Hour, now.Add(2*time.Hour)))
	})
	t.Run("not at all", func(t *testing.T) {
		var o overlap
		assert.Equal(t, list("new"), o.merge(list("new"), before(time.Hour, list("old")...), 0, now))
	})
	t.Run("one that comes back counts again", func(t *testing.T) {
		var o overlap
		o.merge(list("new"), before(time.Hour, list("old")...), -1, now)
		assert.Equal(t, list("old", "new"), o.merge(list("old"), before(2*time.Hour, list("new", "old")...), -1, now))
		assert.Equal(t, list("new", "old"), o.merge(list("new"),
			before(3*time.Hour, list("old", "new")...), -1, now.Add(150*time.Minute)))
	})
	t.Run("expired ones go", func(t *testing.T) {
		var o overlap
		expired := *root["old"]
		expired.NotAfter = now
		assert.Equal(t, list("new", "other"), o.merge(list("new"), before(time.Hour, &expired, root["other"]), -1, now))
	})
	t.Run("the first end is known, and what it leaves", func(t *testing.T) {
		var o overlap
		assert.Zero(t, o.end(list("old")))
		all := o.merge(list("new"), before(time.Hour, list("old")...), -1, now)
		all = o.merge(list("new"), before(3*time.Hour, append(all, root["other"])...), -1, now)
		assert.Equal(t, list("new", "old", "other"), all)
		assert.Equal(t, now.Add(time.Hour), o.end(all))
		assert.Equal(t, all, o.prune(all, now.Add(time.Hour-1)))
		left := o.prune(all, now.Add(time.Hour))
		assert.Equal(t, list("new", "other"), left)
		assert.Equal(t, now.Add(3*time.Hour), o.end(left))
		assert.Equal(t, list("new"), o.prune(left, now.Add(3*time.Hour)))
		var late overlap
		late.merge(list("new"), before(20*365*24*time.Hour, list("other")...), -1, now)
		assert.Equal(t, root["other"].NotAfter, late.end(list("other")), "at its own end at the latest")
	})
	t.Run("nothing is kept that still comes", func(t *testing.T) {
		var o overlap
		assert.Equal(t, list("other", "old"), o.merge(list("other", "old"),
			before(time.Hour, list("old", "other")...), -1, now))
	})
}
