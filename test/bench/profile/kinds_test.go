package profile

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

const traces = `File: certservice
Type: cpu
Duration: 10.1s, Total samples = 60ms
-----------+-------------------------------------------------------
      10ms   crypto/internal/fips140/nistec.p256Mul
             crypto/internal/fips140/nistec.(*P256Point).p256ScalarMult (inline)
             crypto/ecdsa.Verify
-----------+-------------------------------------------------------
      10ms   runtime.memclrNoHeapPointers
             runtime.mallocgc
             crypto/internal/fips140/bigmod.NewNat
-----------+-------------------------------------------------------
      10ms   internal/runtime/syscall/linux.Syscall6
             syscall.write
             crypto/tls.(*Conn).Write
-----------+-------------------------------------------------------
      10ms   runtime.memmove
             strings.Clone
             vendor/golang.org/x/crypto/cryptobyte.(*Builder).add
             crypto/x509.parseCertificate
-----------+-------------------------------------------------------
      10ms   sync.(*Mutex).Lock
             slices.SortFunc[go.shape.[]github.com/a/b.C,go.shape.int]
             github.com/certfetcher/certfetcher/internal/cmp.(*codec).list
-----------+-------------------------------------------------------
      10ms   strings.ToLower
             fmt.Sprint
`

func TestShares_byTheInnermostFunctionThatSaysWhat(t *testing.T) {
	shares, err := Shares(strings.NewReader(traces))
	assert.NoError(t, err)
	for _, kind := range []Kind{Cryptography, Runtime, Kernel, ASN1, Own, Rest} {
		assert.InDelta(t, 1./6, shares[kind], 1e-9, kind)
	}
}

func TestShares_ofWhatIsNoProfile(t *testing.T) {
	_, err := Shares(strings.NewReader("File: certservice\n"))
	assert.EqualError(t, err, "the profile has no samples")
	_, err = Shares(strings.NewReader("-----\nnonsense\n"))
	assert.EqualError(t, err, `the line "nonsense" of pprof's is not the begin of a sample`)
}

func TestPackageOf(t *testing.T) {
	for function, pkg := range map[string]string{
		"crypto/tls.(*Conn).Write": "crypto/tls",
		"main.main":                "main",
		"slices.SortFunc[go.shape.[]github.com/a/b.C]":       "slices",
		"vendor/golang.org/x/crypto/cryptobyte.(*String).Rd": "golang.org/x/crypto/cryptobyte",
		"github.com/a/b.(*C[github.com/d/e.F]).m":            "github.com/a/b",
	} {
		assert.Equal(t, pkg, packageOf(function))
	}
}
