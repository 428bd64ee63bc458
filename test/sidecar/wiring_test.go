package sidecar

import (
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	schedule "github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/test/port"
	"github.com/certfetcher/certfetcher/test/service"
)

// answerUpdates lets the handler answer the requests for updates.
func answerUpdates(handler http.HandlerFunc) func(*service.Service, http.Handler) http.Handler {
	return func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isUpdate(r) {
				handler(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

const due = 20 * time.Second // tolerance, as certificates know seconds only and take time to come

func TestSidecar_planFollowsTheConfiguration(t *testing.T) {
	for name, row := range map[string]struct {
		variables []string
		policy    schedule.Policy
	}{
		"as it is":     {nil, schedule.Policy{At: 2. / 3, Seed: "test"}},
		"RENEW_AT":     {[]string{"RENEW_AT=10%"}, schedule.Policy{At: 0.1, Seed: "test"}},
		"RENEW_BEFORE": {[]string{"RENEW_BEFORE=40h"}, schedule.Policy{At: 2. / 3, Before: 40 * time.Hour, Seed: "test"}},
		"POD_UID":      {[]string{"POD_UID=another"}, schedule.Policy{At: 2. / 3, Seed: "another"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, startService(t, 1000*time.Hour, nil), row.variables...)
			got, err := time.Parse(time.RFC3339, p.await(1, planned).text("due"))
			require.NoError(t, err)
			c := inspected(t, p.volume).Certificate
			want := row.policy.Due(schedule.Certificate{NotBefore: c.NotBefore, NotAfter: c.NotAfter})
			assert.WithinDuration(t, want, got, due)
			p.end()
		})
	}
}

func TestSidecar_updateURL_isAskedForUpdates(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var paths []string
	s := startService(t, time.Hour, func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			paths = append(paths, r.URL.Path)
			mu.Unlock()
			r.URL.Path = strings.Replace(r.URL.Path, "/elsewhere/", "/v1/certificate-update/", 1)
			next.ServeHTTP(w, r)
		})
	})
	p := start(t, s, "UPDATE_URL="+strings.Replace(s.URL, "/v1/certificate/", "/elsewhere/", 1))
	p.await(1, planned)
	p.renew()
	p.await(1, updated)
	p.await(2, planned)
	p.end()
	assert.Equal(t, []string{"/v1/certificate/RA", "/elsewhere/RA"}, paths)
}

func TestSidecar_filesThatVanishDuringARequest_arePutBackMeanwhile(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	s := startService(t, time.Hour, func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isUpdate(r) {
				asked <- struct{}{}
				<-answer
			}
			next.ServeHTTP(w, r)
		})
	})
	p := start(t, s)
	p.await(1, planned)
	files := snapshot(t, p.volume)
	p.renew()
	<-asked
	require.NoError(t, os.Remove(filepath.Join(p.volume, "keystore.p12")))
	p.await(1, putBack)
	assert.Equal(t, files, snapshot(t, p.volume))
	assert.Zero(t, p.count(updated))
	close(answer)
	p.await(1, updated)
	p.await(2, planned)
	p.end()
}

func TestSidecar_updatesFailAndTheEndIsNear_enrolsAnewAndSaysWhy(t *testing.T) {
	nowhere := "UPDATE_URL=https://" + port.Free(t) + "/v1/certificate-update/"
	for name, row := range map[string]struct {
		left      time.Duration // of 100 hours
		variables []string
		want      string // why it enrols; or, where that stays away, why it fails
		enrols    bool
	}{
		"in the last tenth":                             {9 * time.Hour, nil, "502", true},
		"in the last tenth, and nothing is there":       {9 * time.Hour, []string{nowhere}, "connection refused", true},
		"in the last tenth, and enrolling is forbidden": {9 * time.Hour, []string{"RENEW_FALLBACK=false"}, "502", false},
		"before": {11 * time.Hour, nil, "502", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unavailable := answerUpdates(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusBadGateway) })
			s := startService(t, 0, func(s *service.Service, next http.Handler) http.Handler {
				s.CA.Change = func(leaf *x509.Certificate) {
					leaf.NotAfter = time.Now().Add(row.left)
					leaf.NotBefore = leaf.NotAfter.Add(-100 * time.Hour)
				}
				return unavailable(s, next)
			})
			p := start(t, s, row.variables...)
			p.await(1, planned)
			p.renew()
			if row.enrols {
				assert.Regexp(t, "^less than a tenth of its life is left, and the update fails: .*"+row.want, p.await(1, anew).text("error"))
				p.await(2, planned)
			} else {
				assert.Contains(t, p.awaitFailure(1).text("error"), row.want)
				assert.Zero(t, p.count(anew))
			}
			p.end()
		})
	}
}

func TestSidecar_expiredAndEnrollingIsForbidden_waitsForTheOperator(t *testing.T) {
	t.Parallel()
	s := startService(t, 5*time.Second, answerUpdates(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "busy", http.StatusServiceUnavailable)
	}))
	volume := filepath.Join(t.TempDir(), "volume")
	variables := append(environment(s.URL, s.Dir, volume), "RENEW_FALLBACK=false")
	p := run(t, volume, variables)
	const expired = "renewing failed, and the certificate has expired; trying again"
	l := p.await(1, expired)
	for n := 2; !strings.Contains(l.text("error"), "it expired at "); n++ { // the try before may have ended just now
		l = p.await(n, expired)
	}
	assert.Contains(t, l.text("error"), ", and RENEW_FALLBACK=false forbids to enrol again")
	assert.Equal(t, 15*time.Minute, l.duration("next_in"))
	requests := s.Requests()
	before := p.count(expired)
	p.renew()
	p.await(before+1, expired)
	assert.Equal(t, requests, s.Requests(), "nobody is asked in vain")
	assert.Zero(t, p.count(anew))
	p.end()

	p = run(t, volume, variables)
	assert.Contains(t, p.await(1, "enrolling").text("trigger"), "has expired", "a start is a first fetch")
	p.await(1, planned)
	p.end()
}

func TestSidecar_newIdentityAfterAFailure_renewsAtOnce(t *testing.T) {
	t.Parallel()
	var first string
	s := startService(t, time.Hour, func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shown := r.TLS.PeerCertificates[0].SerialNumber.String()
			if first == "" {
				first = shown
			}
			if isUpdate(r) && shown == first {
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	p := start(t, s)
	p.await(1, planned)
	p.renew()
	p.awaitFailure(1)
	key, chain, err := s.Transport.Identity("certfetcher")
	require.NoError(t, err)
	require.NoError(t, service.WriteIdentity(s.Dir, key, chain, s.Transport.Root))
	assert.Equal(t, "new mutual TLS identity", p.await(2, "renewing").text("trigger"))
	p.await(1, updated)
	p.end()
}

func TestSidecar_interruptFromTheKeyboard_endsIt(t *testing.T) {
	t.Parallel()
	p := start(t, startService(t, time.Hour, nil))
	p.await(1, planned)
	p.endBy(syscall.SIGINT)
	assert.Equal(t, 1, p.count("ended by a signal"))
}
