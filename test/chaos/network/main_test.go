package network

import (
	"context"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestMain(m *testing.M) { chaos.Main(m, nil) }

// Exit codes of the README that a broken network may lead to.
const (
	exitService    = 5 // it answered with an error
	exitConnection = 6
)

// slack is what a loaded machine may take longer than the configured times say.
const slack = 20 * time.Second

// random returns a source of faults for the test and the n-th of its runs. CHAOS_SEED repeats a series.
func random(t testing.TB) func(n int) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("CHAOS_SEED"); given != "" {
		seed = fixture.Must(strconv.ParseUint(given, 10, 64))
	}
	t.Logf("CHAOS_SEED=%d repeats these faults", seed)
	name := fnv.New64a()
	name.Write([]byte(t.Name()))
	return func(n int) *rand.Rand { return rand.New(rand.NewPCG(seed^name.Sum64(), uint64(n))) }
}

// startStack starts one as the chart configures it.
func startStack(t testing.TB, servers func(chaos.Server) []chaos.Server, more ...string) *fixture.Stack {
	t.Helper()
	return chaos.StartStack(t, chaos.Bin, servers, append(more, "GOMEMLIMIT=110MiB")...)
}

// startWithBroken starts a stack with a broken network in front of the CA.
func startWithBroken(t testing.TB, draw func() Fault) (*fixture.Stack, *Broken) {
	t.Helper()
	var b *Broken
	s := startStack(t, func(entry chaos.Server) []chaos.Server {
		b = broken(t, host(entry["url"].(string)), draw)
		entry["url"], entry["timeout"] = "http://"+b.Address+"/pkix/", "3s"
		return []chaos.Server{entry}
	})
	return s, b
}

// host is the host:port of a URL.
func host(address string) string { return fixture.Must(url.Parse(address)).Host }

// issued is how many certificates a devca has issued.
func issued(devca *fixture.Process) int { return strings.Count(devca.Logged(), `"certificate issued"`) }

// on is a volume for certificates of the CertService at the address, a host:port, with the identity in dir.
func on(t testing.TB, address, dir, layout string, types ...string) *chaos.Volume {
	t.Helper()
	environment := fixture.Environment("https://"+address+"/v1/certificate/", dir, "")
	return chaos.NewVolume(t, environment, layout, types...)
}

// newAskers makes functions that ask the CertService at the address, a host:port, for a certificate, as certfetcher's
// client does, each with an identity of its own: one client alone may not have all of a service. Without retry they
// ask once; the log is of the tries that are followed by another.
func newAskers(t testing.TB, s *fixture.Stack, n int, address, ca string, retry *client.Retry,
	log *slog.Logger) (askers []func() error) {
	t.Helper()
	csr, key := chaos.Request("ECDSA-P256")
	for range n {
		identity := chaos.WriteIdentity(t, s.Transport, t.TempDir())
		c, err := client.New(client.Config{URL: "https://" + address + "/v1/certificate/",
			CAName: ca, TLS: identity, Timeout: 30 * time.Second, Retry: retry, Log: log})
		require.NoError(t, err)
		askers = append(askers, func() error {
			_, err := c.Enroll(context.Background(), client.Request{CSR: csr, Key: key})
			return err
		})
	}
	return askers
}

var stubborn = &client.Retry{InitialInterval: 50 * time.Millisecond, MaxInterval: 500 * time.Millisecond,
	MaxElapsed: time.Minute}
