package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// Handshakes are connections that were made one after the other, each for one small request.
type Handshakes struct {
	Connections int
	Resumed     int // of them, how many in a session that was resumed
	Took        time.Duration
	CPU         time.Duration // of certservice, in steps of 10 ms
}

// Rate is how many connections were made in a second.
func (h Handshakes) Rate() float64 { return float64(h.Connections) / max(h.Took.Seconds(), 1e-9) }

// CPUEach is the processor time of certservice for one connection with its request.
func (h Handshakes) CPUEach() time.Duration { return h.CPU / time.Duration(max(1, h.Connections)) }

// MeasureHandshakes has clients connect by mutual TLS, 16 at a time, each client for one request a connection, with or
// without a session to resume. The identities of both sides are of the kind of key, P-256 or RSA-2048, with
// certificates of CAs with P-256.
func MeasureHandshakes(bin, loader, dir, key string, resume bool, during time.Duration) (h Handshakes, err error) {
	s, err := StartStack(bin, bin, dir)
	if err != nil {
		return h, err
	}
	defer s.Stop()
	if s, err = withIdentities(s, key); err != nil {
		return h, err
	}
	defer s.CertService.Stop()
	pid := s.CertService.Process.Pid
	before := chaos.ProcessorTime(pid)
	printed, err := exec.Command(loader, "handshakes", "https://"+s.CertService.Address()+"/ready", s.Dir,
		strconv.FormatBool(resume), during.String()).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return h, fmt.Errorf("the load has failed: %w: %s", err, failed.Stderr)
	}
	if err != nil {
		return h, err
	}
	err = json.Unmarshal(printed, &h)
	h.CPU = chaos.ProcessorTime(pid) - before
	return h, err
}

// withIdentities is the stack's certservice once more, with keys of a kind for it and its clients.
func withIdentities(s *fixture.Stack, kind string) (*fixture.Stack, error) {
	dir := filepath.Dir(s.Dir)
	again := *s
	again.Dir = filepath.Join(dir, "client-"+kind)
	server := filepath.Join(dir, "server-"+kind)
	for _, side := range []string{again.Dir, server} {
		key, chain, err := s.Transport.IdentityOf(fixture.NewKey(kind), filepath.Base(side))
		if err == nil {
			err = os.MkdirAll(side, 0o700)
		}
		if err == nil {
			err = fixture.WriteIdentity(side, key, chain, s.Transport.Root)
		}
		if err != nil {
			return nil, err
		}
	}
	var err error
	again.CertService, err = s.CertService.Again("KEYSTORE_PATH="+filepath.Join(server, "client.p12"),
		"TRUSTSTORE_PATH="+filepath.Join(server, "truststore.p12"))
	return &again, err
}
