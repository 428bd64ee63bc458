package doctor_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/service"
)

// Our CertService words what it says of paths that it does not know as it words everything else.
func TestRun_pathThatIsNoneOfTheAPI_isNotTakenForAnUnknownCA(t *testing.T) {
	s, o := start(t, service.Options{})
	for path, asked := range map[string]string{"/v2/certificate/": "/v2/certificate/RA", "/": "/RA", "": "/RA"} {
		o.Config.Request.URL = strings.TrimSuffix(s.URL, "/v1/certificate/") + path
		report, checks := run(t, o)
		assert.Equal(t, doctor.Check{
			Name: "ca name", Status: doctor.Failed, ExitCode: 5,
			Found:  "the path of REQUEST_URL leads nowhere: GET " + asked + ` is answered by 404 Not Found ("There is nothing at this path")`,
			Advice: "correct the path in REQUEST_URL; that of a CertService ends in /v1/certificate/",
		}, checks["ca name"])
		assert.Equal(t, 5, report.ExitCode())
	}
}
