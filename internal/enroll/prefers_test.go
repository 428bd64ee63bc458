package enroll

import (
	"crypto/x509"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestEnroller_prefers_whatFitsAndIsNewer(t *testing.T) {
	cfg := configuration(t, map[string]string{"MODE": "sidecar"})
	authority := fixture.Must(fixture.NewCA("One"))
	from := func(authority *fixture.CA, change func(*x509.Certificate)) output.Bundle {
		authority.Change = change
		key, err := keygen.GenerateKey(cfg.Certificate.KeyAlgorithm)
		require.NoError(t, err)
		csr, err := keygen.CreateCSR(cfg.Certificate.Template, key)
		require.NoError(t, err)
		chain := fixture.Must(authority.Issue(csr))
		return output.Bundle{Key: key, Chain: chain, Trusted: []*x509.Certificate{authority.Root}}
	}
	begin := time.Now().Add(-time.Minute).Truncate(time.Second)
	at := func(seconds int) func(*x509.Certificate) {
		return func(leaf *x509.Certificate) { leaf.NotBefore = begin.Add(time.Duration(seconds) * time.Second) }
	}
	current := from(authority, at(1))
	e := &Enroller{Config: cfg, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	e.current.Store(&current)

	newer := from(authority, at(2))
	assert.True(t, e.prefers(newer))
	assert.False(t, e.prefers(from(authority, at(0))), "it is older")
	assert.False(t, e.prefers(current), "it is the same")
	assert.False(t, e.prefers(from(authority, func(leaf *x509.Certificate) {
		at(2)(leaf)
		leaf.DNSNames = []string{"other.example.org"}
	})), "it has other names")

	another := fixture.Must(fixture.NewCA("Another"))
	more, fewer := current, current
	more.Trusted = append(slices.Clone(current.Trusted), another.Root)
	e.current.Store(&more)
	assert.True(t, e.prefers(fewer), "the overlap is over")
	e.current.Store(&fewer)
	assert.False(t, e.prefers(more), "no one brings back what was pruned")
	e.current.Store(&current)

	stranger := fixture.Must(fixture.NewCA("Two"))
	assert.False(t, e.prefers(from(stranger, at(2))), "who wrote it trusts its issuer, no one else does")

	same := from(authority, at(1))
	forth := e.prefers(same)
	e.current.Store(&same)
	assert.NotEqual(t, forth, e.prefers(current), "of two of the same second, both processes take the same")
}
