package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// cmpNetwork checks the way to the CMP server, and asks it for the CA's certificates, which costs
// no certificate. identity is nil when the mutual TLS files are unusable.
func (d *doctor) cmpNetwork(ctx context.Context, identity *mtls.Identity) {
	names := cmpChecks
	plain := strings.HasPrefix(d.Config.CMP.URL, "http:")
	if !plain {
		names = slices.Concat(names, []string{checkTLS, checkServer, checkTrust, checkServerName, checkAccepted})
	}
	for _, variable := range []string{"CMP_URL", "CMP_RECIPIENT", "CMP_SECRET", "CMP_PROTECTION", "CMP_TRUST_ANCHORS",
		"TOKEN_PATH"} {
		if fault := d.faulty(variable); fault != "" {
			d.skipRest(names, fault+" has a fault")
			return
		}
	}
	d.anchors()
	diagnosis, err := client.DiagnoseCarrier(ctx, d.carrierConfig(identity))
	if err != nil { // config has checked the same before
		d.skipRest(names, err.Error())
		return
	}
	w := d.newWay(diagnosis, identity)
	w.Plain, w.Peer = plain, "CMP server"
	if w.Follow(names) {
		d.general(ctx, identity)
	}
}

// carrierConfig is the way of a request, with the doctor's patience.
func (d *doctor) carrierConfig(identity *mtls.Identity) client.Config {
	cfg := enroll.CarrierConfig(d.Config.Settings, identity, d.UserAgent+" (doctor)", d.Now)
	cfg.Timeout, cfg.Dialer, cfg.Proxy = d.NetworkTimeout, d.Dialer, d.Proxy
	return cfg
}

func (d *doctor) anchors() {
	anchors, err := d.Config.CMP.LoadAnchors()
	switch {
	case err != nil:
		d.fail(enroll.StageTLSConfiguration, checkAnchors, err.Error(),
			"correct the variable, or the file or Secret that it leads to")
	case len(anchors) == 0:
		d.ok(checkAnchors, "those that the CA sends, for which the secret vouches")
	default:
		var names []string
		for _, anchor := range anchors {
			names = append(names, fmt.Sprintf("%q", pki.DN(anchor.RawSubject)))
		}
		d.ok(checkAnchors, "%s", some(names))
	}
}

// general tells what the server makes of a general message.
func (d *doctor) general(ctx context.Context, identity *mtls.Identity) {
	info, err := enroll.AskCMP(ctx, d.Config.Settings, d.carrierConfig(identity), identity)
	if !info.Time.IsZero() { // it is in whole seconds
		d.Clock(enroll.StageVerification.ExitCode(), d.Now().Sub(info.Time)-500*time.Millisecond, "CMP server")
	}
	var status *cmp.StatusError
	var check *cmp.CheckError
	var refusal *client.StatusError
	switch {
	case err == nil:
		d.ok(checkCMP, "the CA answers, and names %d of its certificates", len(info.CACerts))
	case errors.As(err, &check):
		d.fail(enroll.StageCertService, checkCMP, err.Error(),
			"check CMP_SECRET and CMP_TRUST_ANCHORS: they say whose answers are believed")
	case errors.As(err, &status) && status.RefusesSender():
		d.fail(enroll.StageCertService, checkCMP, err.Error(),
			"check CMP_REFERENCE, CMP_SECRET and CMP_RECIPIENT, or the certificate in KEYSTORE_PATH, and what the CA "+
				"has for them; its log tells the reason")
	case errors.As(err, &status):
		d.ok(checkCMP, "the CA answers, and serves no general messages: %v", err)
	case errors.As(err, &refusal):
		d.fail(enroll.StageCertService, checkCMP, err.Error(), refusal.Advice())
	default:
		stage := enroll.StageOf(err)
		d.fail(stage, checkCMP, err.Error(), "check CMP_URL: a CMP server answers there")
	}
}
