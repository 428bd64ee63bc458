package doctor

import (
	"fmt"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// The longest life that a CertService accepts, and by how much a token may seem to be of the future
// before it is worth a warning.
const (
	longestToken = 24 * time.Hour
	tokenSkew    = 5 * time.Second
)

const projectToken = "mount a projected volume with a serviceAccountToken, with audience and expirationSeconds, and " +
	"have TOKEN_PATH lead to its file"

// token checks what a CertService checks of the token, as far as it is known here. It tells whether
// there is a token to show.
func (d *doctor) token(path string) bool {
	t, err := client.LoadToken(path)
	if err != nil {
		d.fail(enroll.StageTLSConfiguration, checkToken, err.Error(), projectToken)
		d.skip(checkLifetime, "because the token check failed")
		return false
	}
	d.tokenClaims(t)
	d.tokenLife(t, d.Now())
	return true
}

func (d *doctor) tokenClaims(t client.Token) {
	found := fmt.Sprintf("of %q, for audience %q, by issuer %q", t.Subject, t.Audience, t.Issuer)
	switch {
	case t.Subject != "system:serviceaccount:"+t.Namespace+":"+t.ServiceAccount:
		d.fail(enroll.StageConnection, checkToken, found+"; this is no token of a Kubernetes service account, which "+
			"has the claim kubernetes.io and its names in sub", projectToken)
	case t.Pod == "":
		d.warn(checkToken, found+"; it is bound to no pod, which a CertService refuses without "+
			"TOKEN_ALLOW_UNBOUND=true", projectToken)
	case slices.Contains(t.Audience, t.Issuer):
		d.warn(checkToken, found+"; it is good for the API server of the cluster as well", projectToken)
	default:
		d.ok(checkToken, "%s; it is bound to a pod", found)
	}
}

func (d *doctor) tokenLife(t client.Token, now time.Time) {
	problem, life := t.Problem(now), t.Expires.Sub(t.Begins())
	const replaced = "the kubelet replaces the file when four fifths of its life are over, but not in a subPath"
	found := fmt.Sprintf("valid from %s until %s", pki.Stamp(t.Begins()), until(t.Expires, now))
	switch {
	case problem != "":
		d.fail(enroll.StageConnection, checkLifetime, problem, "check this machine's clock; "+replaced)
	case life > longestToken:
		d.fail(enroll.StageConnection, checkLifetime, found+"; a CertService accepts a life of 24 hours", projectToken)
	case t.Begins().Sub(now) > tokenSkew:
		d.warn(checkLifetime, found+"; this machine's clock is behind the issuer's",
			"set this machine's clock by NTP; in a container it is the node's")
	case t.Expires.Sub(now) < life/10:
		d.warn(checkLifetime, found+"; less than a tenth of its life is left", replaced)
	default:
		d.ok(checkLifetime, "%s", found)
	}
}
