package doctor_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestRun_updateURL(t *testing.T) {
	for sentence, row := range map[string]struct {
		change  func(s *service.Service, o *doctor.Options)
		options service.Options
		status  doctor.Status
		found   string // {url} stands for the CertService's, without a path
		code    int
	}{
		"leads to the CertService": {status: doctor.OK, found: "{url}/v1/certificate-update/ leads to a CertService that accepts us"},
		"leads to a host that is not there": {
			change: func(_ *service.Service, o *doctor.Options) {
				o.Config.Sidecar.UpdateURL = "https://nosuch.invalid:8443/v1/certificate-update/"
			},
			status: doctor.Failed, code: 6,
			found: `UPDATE_URL https://nosuch.invalid:8443/v1/certificate-update/, dns: the name "nosuch.invalid" cannot be resolved (lookup nosuch.invalid on …: no such host)`,
		},
		"leads to a path that is not there": {
			change: func(_ *service.Service, o *doctor.Options) {
				o.Config.Sidecar.UpdateURL = strings.Replace(o.Config.Sidecar.UpdateURL, "-update", "-updates", 1)
			},
			status: doctor.Failed, code: 5,
			found: `UPDATE_URL {url}/v1/certificate-updates/, ca name: the path of UPDATE_URL leads nowhere: GET /v1/certificate-updates/RA is answered by 404 Not Found: There is nothing at this path`,
		},
		"leads to a CertService that is not ready": {
			options: service.Options{Wrap: func(_ *service.Service, next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/ready" {
						w.WriteHeader(http.StatusServiceUnavailable)
						return
					}
					next.ServeHTTP(w, r)
				})
			}},
			status: doctor.Failed, code: 5,
			found: "UPDATE_URL {url}/v1/certificate-update/, certservice: not ready: GET /ready is answered by 503 Service Unavailable: no errorMessage but an empty body",
		},
		"leads to the same host, which is down": {
			change: func(s *service.Service, _ *doctor.Options) { s.Stop() },
			status: doctor.Skipped, found: "because the tcp check failed, which is about the same host", code: 6,
		},
		"cannot be followed without a key": {
			change: func(_ *service.Service, o *doctor.Options) { o.Config.TLS.KeystorePassword = "swordfish" },
			status: doctor.Skipped, found: "not checked beyond TCP, because the mutual TLS files cannot be used", code: 9,
		},
		"is checked though REQUEST_URL is faulty": {
			change: func(_ *service.Service, o *doctor.Options) {
				o.Faults = config.Faults{{Variable: "REQUEST_URL", Problem: "is wrong"}}
			},
			status: doctor.OK, found: "{url}/v1/certificate-update/ leads to a CertService that accepts us", code: 1,
		},
		"is faulty": {
			change: func(_ *service.Service, o *doctor.Options) {
				o.Faults = config.Faults{{Variable: "UPDATE_URL", Problem: "is wrong"}}
			},
			status: doctor.Skipped, found: "UPDATE_URL has a fault", code: 1,
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, row.options)
			o.Config.Sidecar = config.Sidecar{Enabled: true, UpdateURL: strings.Replace(s.URL, "certificate", "certificate-update", 1)}
			if row.change != nil {
				row.change(s, &o)
			}
			report, checks := run(t, o)
			assert.Equal(t, row.status, checks["update url"].Status)
			requireText(t, strings.ReplaceAll(row.found, "{url}", strings.TrimSuffix(s.URL, "/v1/certificate/")), checks["update url"].Found)
			assert.Equal(t, row.code, report.ExitCode())
		})
	}
}

func TestRun_sidecarsChecks_areLeftOutWhenTheyAreNotUsed(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Sidecar.Enabled = true
	_, checks := run(t, o)
	for _, name := range []string{"update url", "health address", "postprocess"} {
		assert.NotContains(t, checks, name)
	}
}
