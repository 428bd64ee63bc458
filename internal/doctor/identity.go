package doctor

import (
	"time"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
)

// identity checks the mutual TLS files, and the token; nil when they cannot be used.
func (d *doctor) identity() *mtls.Identity {
	path := d.Config.Request.TokenPath
	for _, fault := range d.Faults {
		if fault.Stage == enroll.StageTLSConfiguration {
			d.skipRest(identityChecks, fault.Variable+" has a fault")
			if path != "" {
				d.skipRest(tokenChecks, fault.Variable+" has a fault")
			}
			return nil
		}
	}
	identity := d.identityFiles()
	if path != "" && !d.token(path) && identity != nil {
		d.lacking, identity = "token", nil
	}
	return identity
}

func (d *doctor) identityFiles() *mtls.Identity {
	files := checks.Identity{List: &d.List, Files: d.Config.TLS, Now: d.Now,
		ExitCode: enroll.StageTLSConfiguration.ExitCode(), Program: "certfetcher", Peer: "the CertService",
		Side: "client"}
	return files.Check()
}

func some(list []string) string { return checks.Some(list) }

func until(end, now time.Time) string { return checks.Until(end, now) }
