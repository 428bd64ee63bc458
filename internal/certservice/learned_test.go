package certservice

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// newEJBCA answers as EJBCA does with responseprotection=pbe: by MAC to requests under a MAC, and signed to key updates.
func newEJBCA(t *testing.T) *cmpServer {
	s := newCMPServer(t)
	signer := identity(t, s.ca)
	s.updates = &signer
	return s
}

// unchangedFile is a cmpServers.json as ONAP has it: without trustAnchors.
func (s *cmpServer) unchangedFile(iak string) string {
	return fileOf(`{"caName": "RA", "url": "` + s.url + `", "issuerDN": "CN=peer", "authentication": {"iak": "` + iak + `", "rv": "` + testRV + `"}}`)
}

func (s *cmpServer) configuration(iak string) (*Configuration, string, *lockedBuffer) {
	path, log := filepath.Join(s.t.TempDir(), "cmpServers.json"), &lockedBuffer{}
	writeFile(s.t, path, s.unchangedFile(iak))
	logger := slog.New(slog.NewJSONHandler(log, nil))
	c := NewConfiguration(path, CMPBuilder(CMPOptions{Log: logger}), nil, logger)
	require.NoError(s.t, c.Reload("start"))
	return c, path, log
}

func (s *cmpServer) kinds() (kinds []cmp.BodyType) {
	for _, request := range s.received {
		kinds = append(kinds, request.Body.Type)
	}
	return kinds
}

func update(t *testing.T, c *Configuration, s *cmpServer) (Issued, error) {
	t.Helper()
	a, ok := c.Lookup("RA")
	require.True(t, ok)
	return a.Update(t.Context(), s.updateRequest(nil))
}

const asCertificationRequest = "update sent as a certification request under the shared secret"

func TestCMPAuthority_updateWithoutAnchors_isVerifiedByTheRootThatTheCASent(t *testing.T) {
	s := newEJBCA(t)
	c, _, log := s.configuration(testIAK)
	service := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })
	require.Equal(t, http.StatusOK, service.get(t, "/v1/certificate/RA", enrollHeader(t)).StatusCode)

	issued, err := update(t, c, s)

	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{s.ca.Root}, issued.Trusted)
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyKUR}, s.kinds())
	assert.False(t, containsText(log, asCertificationRequest))
}

func TestCMPAuthority_updateWithoutAnchorsAndRoots_isSentUnderTheSecret(t *testing.T) {
	s := newEJBCA(t)
	c, _, log := s.configuration(testIAK)

	_, err := update(t, c, s)
	require.NoError(t, err)
	assert.True(t, containsText(log, asCertificationRequest))
	_, err = update(t, c, s)

	require.NoError(t, err)
	assert.Equal(t, []cmp.BodyType{cmp.BodyCR, cmp.BodyKUR}, s.kinds(), "the first answer brought the root")
	_, err = cmp.NewMACKeys([]byte(testIAK)).Verify(s.received[0])
	assert.NoError(t, err)
}

func TestCMPAuthority_learnedRoots_surviveReloadsOfTheSameEntryOnly(t *testing.T) {
	s := newEJBCA(t)
	c, path, _ := s.configuration(testIAK)
	_, err := update(t, c, s)
	require.NoError(t, err)

	require.NoError(t, c.Reload("request"))
	_, err = update(t, c, s)
	require.NoError(t, err)
	writeFile(t, path, s.unchangedFile("another-secret"))
	require.NoError(t, c.Reload("request"))
	_, _ = update(t, c, s)

	assert.Equal(t, []cmp.BodyType{cmp.BodyCR, cmp.BodyKUR, cmp.BodyCR}, s.kinds(), "another secret may be another CA's")
}

func TestCMPAuthority_learnedRoots_areOnlySelfSignedOnesFromCAPubs(t *testing.T) {
	s := newEJBCA(t)
	s.caPubs = []*x509.Certificate{s.ca.Issuing} // the root is in extraCerts
	c, _, _ := s.configuration(testIAK)

	for range 2 {
		_, err := update(t, c, s)
		require.NoError(t, err)
	}

	assert.Equal(t, []cmp.BodyType{cmp.BodyCR, cmp.BodyCR}, s.kinds())
}

func TestCMPAuthority_learnedRoots_takeNoOneElsesAnswer(t *testing.T) {
	s := newEJBCA(t)
	c, _, _ := s.configuration(testIAK)
	_, err := update(t, c, s)
	require.NoError(t, err)
	stranger := identity(t, newCA(t, "CMP"))
	s.updates = &stranger

	_, err = update(t, c, s)

	assert.ErrorContains(t, err, "which does not verify")
	_, err = update(t, c, s)
	require.NoError(t, err, "a CA with a new root is asked under the secret, which brings it")
	assert.Equal(t, []cmp.BodyType{cmp.BodyCR, cmp.BodyKUR, cmp.BodyCR}, s.kinds())
}

func TestCMPAuthority_learnedRoots_endWithTheirValidity(t *testing.T) {
	s := newEJBCA(t)
	a, _ := s.authority(nil)
	now := time.Now()
	a.(*cmpAuthority).now = func() time.Time { return now }
	_, err := a.Enroll(t.Context(), enrollRequest(t))
	require.NoError(t, err)
	require.Len(t, a.(*cmpAuthority).learned.trusted(now), 1)

	assert.Empty(t, a.(*cmpAuthority).learned.trusted(s.ca.Root.NotAfter.Add(time.Second)))
}

func TestLearned_isBounded(t *testing.T) {
	store, roots := newLearnedStore(), make([]*x509.Certificate, maxLearnedRoots+1)
	root := newCA(t, "Root").Root
	for i := range roots {
		roots[i] = root
	}
	for i := range 3 * maxLearned {
		store.of(Server{URL: time.Duration(i).String()}).learn(roots)
	}
	assert.LessOrEqual(t, len(store.byKey), maxLearned)
	assert.Len(t, store.of(Server{URL: time.Duration(3*maxLearned - 1).String()}).trusted(time.Now()), maxLearnedRoots)
}

func TestCMPAuthority_trustAnchors_areNotAddedTo(t *testing.T) {
	s := newEJBCA(t)
	other := newCA(t, "Other")
	a, _ := s.authority(func(server *Server) { server.TrustAnchors = []*x509.Certificate{other.Root} })
	_, err := a.Enroll(t.Context(), enrollRequest(t))
	require.NoError(t, err, "a MAC vouches for the root")

	_, err = a.Update(t.Context(), s.updateRequest(nil))

	assert.ErrorContains(t, err, "which does not verify")
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyKUR}, s.kinds())
}

func TestCMPAuthority_caThatSignsWithoutAnchors_isNotAskedAgainForAWhile(t *testing.T) {
	s := newCMPServer(t)
	signer := identity(t, s.ca)
	s.signer = &signer
	a, log := s.authority(nil)
	now := time.Now()
	a.(*cmpAuthority).now = func() time.Time { return now }
	service := newService(t, a, nil)
	const want = "Exception occurred during call to cmp client: the CA signs its answers and cmpServers.json has no trustAnchors for it: " +
		"set trustAnchors to its root, or have it protect its answers with the shared secret"

	for range 3 {
		r := service.get(t, "/v1/certificate/RA", enrollHeader(t))
		assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
		assert.JSONEq(t, jsonText(t, errorBody{ErrorMessage: want}), r.text)
		_, err := a.Update(t.Context(), s.updateRequest(nil))
		assert.ErrorContains(t, err, "has no trustAnchors for it")
	}
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR}, s.kinds(), "nothing was sent where it was known")
	assert.False(t, containsText(log, asCertificationRequest), "it was not sent")

	now = now.Add(signsFor)
	s.signer = nil
	_, err := a.Enroll(t.Context(), enrollRequest(t))
	assert.NoError(t, err, "its configuration was changed")
}

func TestCMPAuthority_serverThatFails_isAskedOnceMore(t *testing.T) {
	for failures, want := range map[int]int{1: http.StatusOK, 2: http.StatusInternalServerError} {
		s := newCMPServer(t)
		s.failures = failures
		authority, log := s.authority(nil)
		service := newService(t, authority, nil)

		r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

		assert.Equal(t, want, r.StatusCode, r.text)
		require.Len(t, s.received, 2)
		assert.NotEqual(t, s.received[0].Header.TransactionID, s.received[1].Header.TransactionID)
		assert.True(t, containsText(log, "the CMP server failed, the request is sent once more"))
	}
}

// After an answer the certificate may be issued, and the confirmation is what failed.
func TestCMPAuthority_confirmationThatFails_isNotAnotherRequest(t *testing.T) {
	s := newCMPServer(t)
	authority, _ := s.authority(func(server *Server) { server.ExplicitConfirm = true })

	_, err := authority.Enroll(t.Context(), enrollRequest(t))

	require.Error(t, err)
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyCertConf}, s.kinds())
}
