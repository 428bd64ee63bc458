package sidecar

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/ejbca"
)

// With an entry of cmpServers.json as ONAP has it, without anchors, EJBCA signs the answer to a kur. It is checked with
// the root that came with the certificate under the secret.
func TestEJBCA_pbeWithoutAnchors_updatesWithTheRootThatCameUnderTheSecret(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{PBE: true}, map[string]any{"trustAnchors": nil})
	p := e.sidecar()
	p.await(1, planned)
	p.renew()
	p.await(1, updated)
	p.await(2, planned)
	assert.Zero(t, p.count(anew))
	assert.Len(t, e.Requests(cmp.BodyKUR), 1)
}

// A sub-CA puts no root beside the certificate, so that nothing could be checked: the update is made under the secret.
func TestEJBCA_pbeWithoutAnchorsOfASubCA_updatesUnderTheSecret(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{PBE: true, SubCA: true, Subject: "CN=Sub CA,O=Example"}, map[string]any{"trustAnchors": nil})
	p := e.sidecar()
	p.await(1, planned)
	p.renew()
	p.await(1, updated)
	p.await(2, planned)
	assert.Empty(t, e.Requests(cmp.BodyKUR))
	assert.Len(t, e.Requests(cmp.BodyCR), 1)
	assert.Contains(t, e.stack.CertService.Logged(), "update sent as a certification request under the shared secret")
}

// EJBCA that signs every answer cannot be used without anchors, and the message names what is missing.
func TestEJBCA_signaturesWithoutAnchors_areRefused(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{}, map[string]any{"trustAnchors": nil})
	assert.Contains(t, e.fails(5), "trustAnchors")
}
