package sidecar

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/ejbca"
)

// EJBCA answers the update of one holder with the names that another holder of the subject registered last: refused for
// good, enrolled anew at once, and from then on enrolled directly.
func TestEJBCA_namesOfAnotherHolder_enrolsAnewAtOnceAndLaterDirectly(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{}, nil)
	first := e.sidecar("SANS=sts-0.example.org", "OUTPUT_TYPE=PEM")
	first.await(1, planned)
	second := e.sidecar("SANS=sts-1.example.org", "OUTPUT_TYPE=PEM")
	second.await(1, planned)

	first.renew()
	first.await(1, anew)
	first.await(2, planned)

	assert.Equal(t, []string{"sts-0.example.org"}, e.leaf(first).DNSNames)
	assert.Len(t, e.Requests(cmp.BodyKUR), 1, "it does not try again in that way")
	assert.Len(t, e.Requests(cmp.BodyIR), 3)

	first.renew()
	first.await(3, planned)
	assert.Len(t, e.Requests(cmp.BodyKUR), 1, "it enrols directly")
}

// issuerDN that is not the CA's whole name does for ir; the update names the issuer of the old certificate.
func TestEJBCA_issuerDNThatIsNotTheWholeName_updates(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{}, map[string]any{"issuerDN": "CN=Test CA"})
	p := e.sidecar()
	p.await(1, planned)
	p.renew()
	p.await(1, updated)
	p.await(2, planned)
	assert.Contains(t, e.stack.CertService.Logged(), "issuerDN")
}

// EJBCA's page names the alias that it does not have.
func TestEJBCA_unknownAlias_isShownWithTheURL(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{Alias: "another"}, nil)
	e.fails(5)
	logged := e.stack.CertService.Logged()
	assert.Contains(t, logged, "CMP alias 'cmpRA' does not exist")
	assert.Contains(t, logged, "/ejbca/publicweb/cmp/cmpRA")
}

// What EJBCA says of a transaction that failed is a page.
func TestEJBCA_transactionThatAlwaysFails_isShownWithThePage(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{}, nil)
	e.FailTransactions(1_000_000)
	text := e.fails(5)
	assert.Contains(t, text, "HTTP status 500")
	assert.Contains(t, text, "Internal Server Error")
}

// Only the order of the subject's parts differs, which is no change.
func TestEJBCA_orderOfTheSubject_isNoWarning(t *testing.T) {
	t.Parallel()
	e := withEJBCA(t, ejbca.Config{CertificateProfile: ejbca.Custom}, nil)
	p := e.sidecar()
	p.await(1, planned)
	for _, text := range []string{p.text(), e.stack.CertService.Logged()} {
		assert.NotContains(t, text, `"WARN"`)
	}
}

// The certificate profiles ENDUSER and SERVER give one of the two usages that are asked for.
func TestEJBCA_usageThatIsMissing_isAWarning(t *testing.T) {
	t.Parallel()
	for profile, missing := range map[string]string{ejbca.ENDUSER: "serverAuth", ejbca.SERVER: "clientAuth"} {
		e := withEJBCA(t, ejbca.Config{CertificateProfile: profile}, nil)
		e.sidecar().await(1, planned)
		assert.Contains(t, e.stack.CertService.Logged(), missing, profile)
	}
}
