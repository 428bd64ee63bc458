package sidecar

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/service"
)

const (
	keptAsItIs  = "the volume already holds a matching, valid certificate: nothing to do"
	keptForNow  = "the configuration requests another certificate than the one on the volume, which stays until the new one is there"
	renewing    = "renewing"
	accepted    = "certificate accepted with a warning"
	enrolledNew = `certfetcher_renewals_total{outcome="enrolled"}`
)

// startStubbornService runs a CertService whose CA changes subject and names of all that it issues.
func startStubbornService(t *testing.T) *service.Service {
	t.Helper()
	return startService(t, time.Hour, func(s *service.Service, next http.Handler) http.Handler {
		s.CA.Change = func(leaf *x509.Certificate) {
			leaf.RawSubject, leaf.Subject = nil, pkix.Name{CommonName: "app.example.org", OrganizationalUnit: []string{"Policy"}}
			leaf.DNSNames = append(leaf.DNSNames, "added.example.org")
		}
		return next
	})
}

func TestSidecar_certificateThatTheCAChanged_isKeptWithoutTheCertService(t *testing.T) {
	for _, layout := range []string{"symlink", "inplace"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := startStubbornService(t)
			volume := filepath.Join(t.TempDir(), "volume")
			variables := append(environment(s.URL, s.Dir, volume), "OUTPUT_LAYOUT="+layout)
			p := run(t, volume, variables)
			p.await(1, accepted)
			p.await(1, planned)
			p.renew() // the record of a renewal counts as well
			p.await(2, planned)
			p.end()
			files, requests := snapshot(t, volume), s.Requests()
			s.Stop()

			p = run(t, volume, variables)
			p.awaitReady()
			p.await(1, planned)
			assert.Equal(t, 1, p.count(keptAsItIs))
			assert.Zero(t, p.count(renewing))
			p.end()
			assert.Equal(t, files, snapshot(t, volume))
			assert.Equal(t, requests, s.Requests())
		})
	}
}

func TestSidecar_validSetAndNoCertService_isReady_whateverIsRequestedNow(t *testing.T) {
	for name, row := range map[string]struct {
		withoutRecord bool
		variable      string
		because       string
	}{
		"other names":                      {false, "SANS=localhost", "SANS asks for"},
		"other subject":                    {false, "COMMON_NAME=b.example.org", "the configuration asks for"},
		"other key":                        {false, "KEY_ALGORITHM=Ed25519", "KEY_ALGORITHM asks for"},
		"other CA":                         {false, "CA_NAME=RA2", "CA_NAME asks for"},
		"whatever is there":                {false, "FORCE_ENROLL=true", "FORCE_ENROLL is set"},
		"no record, of an earlier release": {true, "", "has the subject"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startStubbornService(t)
			volume := filepath.Join(t.TempDir(), "volume")
			variables := append(environment(s.URL, s.Dir, volume), "OUTPUT_LAYOUT=inplace")
			code, _, stderr := once(t, append(variables, "MODE=init"))
			require.Zero(t, code, stderr)
			s.Stop()
			files := snapshot(t, volume)
			if row.withoutRecord {
				require.NoError(t, os.Remove(filepath.Join(volume, "..request")))
			}
			if row.variable != "" {
				variables = append(variables, row.variable)
			}
			p := run(t, volume, variables)
			p.awaitReady()
			assert.Contains(t, p.await(1, keptForNow).text("trigger"), row.because)
			assert.Equal(t, "the configuration changed", p.await(1, renewing).text("trigger"))
			failure := p.awaitFailure(1)
			assert.Contains(t, failure.text("error"), "connection refused")
			wait := failure.duration("next_in")
			assert.LessOrEqual(t, wait, 2*time.Second, "tried again soon, and not when it is due")
			status, _ := p.get("/readyz")
			assert.Equal(t, http.StatusOK, status)
			p.end()
			assert.Equal(t, files, snapshot(t, volume))
		})
	}
}

func TestSidecar_requestThatChanged_isMadeAtOnce(t *testing.T) {
	for name, row := range map[string]struct {
		variables []string
		key       string
		sans      []string
		forced    bool
	}{
		"names":                           {[]string{"SANS=b.example.org"}, "ECDSA-P256", []string{"DNS:b.example.org"}, false},
		"names, no fallback to enrolling": {[]string{"SANS=b.example.org", "RENEW_FALLBACK=false"}, "ECDSA-P256", []string{"DNS:b.example.org"}, false},
		"key, which was to be reused":     {[]string{"KEY_ALGORITHM=Ed25519", "REUSE_KEY=true"}, "Ed25519", []string{"DNS:localhost", "IP Address:127.0.0.1"}, false},
		"the same, when it is forced":     {[]string{"FORCE_ENROLL=true"}, "ECDSA-P256", []string{"DNS:localhost", "IP Address:127.0.0.1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, time.Hour, nil)
			volume := filepath.Join(t.TempDir(), "volume")
			variables := environment(s.URL, s.Dir, volume)
			p := run(t, volume, variables)
			p.await(1, planned)
			p.end()
			p = run(t, volume, append(variables, append(row.variables, "NOTIFY_EXEC=/usr/bin/env")...))
			p.await(2, planned)
			certificate := inspected(t, volume).Certificate
			assert.Equal(t, row.key, certificate.Key)
			assert.Equal(t, row.sans, certificate.SANs)
			assert.True(t, certificate.KeyFits)
			assert.Equal(t, 1., p.metric(enrolledNew))
			assert.Equal(t, "enrolled", p.await(1, told).text("trigger"))
			assert.Equal(t, 2, s.Requests())
			p.end()
			// The same request once more is none.
			p = run(t, volume, append(variables, row.variables...))
			p.await(1, planned)
			if row.forced {
				p.end()
				return
			}
			assert.Equal(t, 1, p.count(keptAsItIs))
			p.end()
			assert.Equal(t, 2, s.Requests())
		})
	}
}

func TestSidecar_setThatIsNotValid_isNotKept_whateverTheRecordSays(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Second, nil)
	volume := filepath.Join(t.TempDir(), "volume")
	variables := environment(s.URL, s.Dir, volume)
	code, _, stderr := once(t, append(variables, "MODE=init"))
	require.Zero(t, code, stderr)
	s.Stop()
	end := inspected(t, volume).Certificate.NotAfter
	eventually(t, "it expires", func() bool { return time.Now().After(end) })
	code, _, stderr = once(t, variables)
	assert.Equal(t, 6, code)
	assert.Contains(t, stderr, "has expired")
}

// A certificate without a planned end is valid to the last second of the year 9999 (RFC 5280, 4.1.2.5).
func TestSidecar_certificateForThousandsOfYears_isNeitherDueNorOverdue(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, func(s *service.Service, next http.Handler) http.Handler {
		s.CA.Change = func(leaf *x509.Certificate) {
			leaf.NotBefore = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)
			leaf.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
		}
		return next
	})
	volume := filepath.Join(t.TempDir(), "volume")
	for range 2 {
		p := run(t, volume, environment(s.URL, s.Dir, volume))
		due, err := time.Parse(time.RFC3339, p.await(1, planned).text("due"))
		require.NoError(t, err)
		assert.InDelta(t, 7316, due.Year(), 30)
		p.awaitReady()
		assert.Zero(t, p.metric("certfetcher_renewal_overdue_seconds"))
		assert.InDelta(t, float64(due.Unix()), p.metric("certfetcher_next_renewal_timestamp_seconds"), 1)
		p.end()
	}
	assert.Equal(t, 1, s.Requests())
}

// forgetful is an authority that answers an update with the names that it registered last for the subject, as EJBCA does
// where replicas share one.
type forgetful struct {
	service.Authority
	updates   *atomic.Int32
	refuses   bool // its answer is checked by the CertService, else by the client alone
	corrected *atomic.Bool
}

// Enroll refuses once the authority's profile was corrected, as in EJBCA's client mode, where a secret enrols once.
func (a forgetful) Enroll(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	if a.corrected.Load() {
		return certservice.Issued{}, &certservice.RefusedError{Text: "wrong status"}
	}
	return a.Authority.Enroll(ctx, r)
}

func (a forgetful) Update(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	a.updates.Add(1)
	if a.corrected.Load() {
		return a.Authority.Update(ctx, r)
	}
	if a.refuses {
		return certservice.Issued{}, &certservice.NamesError{Err: io.ErrUnexpectedEOF}
	}
	other := *a.CA
	other.Change = func(leaf *x509.Certificate) {
		leaf.DNSNames, leaf.IPAddresses = []string{"replica-2.example.org"}, nil
		leaf.NotBefore, leaf.NotAfter = time.Now(), time.Now().Add(time.Hour)
	}
	return service.Authority{CA: &other}.Enroll(ctx, r)
}

func TestSidecar_updateWithOtherNames_enrolsFromThenOn(t *testing.T) {
	for name, refuses := range map[string]bool{"found by the client": false, "found by the CertService": true} {
		start := func(t *testing.T) (*service.Service, *atomic.Int32, *atomic.Bool) {
			updates, corrected := &atomic.Int32{}, &atomic.Bool{}
			issuing, err := ca.New("Forgetful")
			require.NoError(t, err)
			s, err := service.Start(t.TempDir(), service.Options{Authority: forgetful{service.Authority{CA: issuing}, updates, refuses, corrected}})
			require.NoError(t, err)
			t.Cleanup(s.Stop)
			return s, updates, corrected
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, updates, corrected := start(t)
			volume := filepath.Join(t.TempDir(), "volume")
			variables := environment(s.URL, s.Dir, volume)
			p := run(t, volume, variables)
			p.await(1, planned)
			p.renew()
			because := p.await(1, anew).text("error")
			assert.Contains(t, because, "the CA answers the update with other names than the requested ones")
			assert.Contains(t, because, `EJBCA: "Allow Extension Override"`)
			p.await(2, planned)
			p.renew()
			p.await(3, planned)
			assert.EqualValues(t, 1, updates.Load(), "once is enough to know")
			p.end()
			p = run(t, volume, variables)
			p.await(1, planned)
			p.renew()
			p.await(2, planned)
			assert.EqualValues(t, 1, updates.Load(), "and is remembered")
			assert.Equal(t, []string{"DNS:localhost", "IP Address:127.0.0.1"}, inspected(t, volume).Certificate.SANs)
			assert.Equal(t, 1., p.metric(enrolledNew))
			corrected.Store(true)
			p.renew()
			assert.Contains(t, p.awaitFailure(1).text("error"), "wrong status")
			p.await(1, updated) // by the next try, as enrolling is no way
			p.end()
		})
		t.Run(name+", and enrolling is forbidden", func(t *testing.T) {
			t.Parallel()
			s, updates, _ := start(t)
			volume := filepath.Join(t.TempDir(), "volume")
			p := run(t, volume, append(environment(s.URL, s.Dir, volume), "RENEW_FALLBACK=false"))
			p.await(1, planned)
			files := snapshot(t, volume)
			p.renew()
			failure := p.awaitFailure(1)
			assert.Contains(t, failure.text("error"), `EJBCA: "Allow Extension Override"`)
			wait := failure.duration("next_in")
			assert.Greater(t, wait, 7*time.Minute, "each try costs a certificate")
			assert.EqualValues(t, 1, updates.Load())
			assert.Equal(t, files, snapshot(t, volume))
			p.end()
		})
	}
}

// EJBCA's optimistic lock: of several updates of one subject at a time, some get a page of HTML with status 500.
func TestSidecar_updateThatTheCAFailed_isTriedAgainSoon(t *testing.T) {
	for name, answer := range map[string]string{
		"as the CertService words it": `{"errorMessage":"Exception occurred during call to cmp client: HTTP status 500: text/html, titled \"Internal Server Error\""}`,
		"as a gateway passes it on":   `<html><head><title>Internal Server Error</title></head></html>`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var updates atomic.Int32
			p := start(t, startService(t, time.Hour, func(_ *service.Service, next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if isUpdate(r) && updates.Add(1) == 1 {
						w.WriteHeader(http.StatusInternalServerError)
						_, _ = io.WriteString(w, answer)
						return
					}
					next.ServeHTTP(w, r)
				})
			}))
			p.await(1, planned)
			p.renew()
			failure := p.awaitFailure(1)
			assert.Contains(t, failure.text("error"), "Internal Server Error")
			wait := failure.duration("next_in")
			assert.LessOrEqual(t, wait, 2*time.Second)
			p.renew() // no need to wait for it here
			p.await(1, updated)
			assert.Zero(t, p.count(anew))
			p.end()
		})
	}
}
