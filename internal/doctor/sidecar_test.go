package doctor_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestRun_updateURL(t *testing.T) {
	// with gives the sidecar its UPDATE_URL before other changes.
	with := func(options service.Options, change func(s *service.Service, o *doctor.Options)) row {
		return row{options: options, show: "update url",
			change: func(_ *testing.T, s *service.Service, o *doctor.Options) {
				o.Config.Sidecar.Enabled = true
				o.Config.Request.UpdateURL = strings.Replace(s.URL, "certificate", "certificate-update", 1)
				change(s, o)
			}}
	}
	requireReports(t, "update.txt", map[string]row{
		"leads to the CertService": with(service.Options{}, func(*service.Service, *doctor.Options) {}),
		"leads to a host that is not there": with(service.Options{}, func(_ *service.Service, o *doctor.Options) {
			o.Config.Request.UpdateURL = "https://nosuch.invalid:8443/v1/certificate-update/"
		}),
		"leads to a path that is not there": with(service.Options{}, func(_ *service.Service, o *doctor.Options) {
			o.Config.Request.UpdateURL = strings.Replace(o.Config.Request.UpdateURL, "-update", "-updates", 1)
		}),
		"leads to a CertService that is not ready": with(
			handled(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.URL.Path == "/ready" {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				next.ServeHTTP(w, r)
			}), func(*service.Service, *doctor.Options) {}),
		"leads to the same host, which is down": with(service.Options{},
			func(s *service.Service, _ *doctor.Options) { s.Stop() }),
		"cannot be followed without a key": with(service.Options{}, func(_ *service.Service, o *doctor.Options) {
			o.Config.TLS.KeystorePassword = "swordfish"
		}),
		"is checked though REQUEST_URL is faulty": with(service.Options{}, func(_ *service.Service, o *doctor.Options) {
			o.Faults = config.Faults{{Stage: enroll.StageClientConfiguration,
				Variable: "REQUEST_URL", Problem: "is wrong"}}
		}),
		"is faulty": with(service.Options{}, func(_ *service.Service, o *doctor.Options) {
			o.Faults = config.Faults{{Stage: enroll.StageClientConfiguration,
				Variable: "UPDATE_URL", Problem: "is wrong"}}
		}),
	})
}

func TestRun_sidecarsChecks_areLeftOutWhenTheyAreNotUsed(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Sidecar.Enabled = true
	_, checks := run(t, o)
	for _, name := range []string{"update url", "health address", "postprocess"} {
		assert.NotContains(t, checks, name)
	}
}
