package program

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// probeTimeout is shorter than the second that Kubernetes gives a probe by default.
const probeTimeout = 900 * time.Millisecond

// Probe asks a server of ours on this machine how it is, for health checks in images that have no shell and no curl.
// It asks for a path at an address as a server is given it: host:port, or :port for all addresses, which is asked on
// loopback. Any status that ok allows is success.
func Probe(ctx context.Context, address, path string, ok func(status int) bool) error {
	status, _, err := AskLocal(ctx, address, path)
	if err == nil && !ok(status) {
		err = fmt.Errorf("http://%s%s answered %d %s", onThisMachine(address), path, status, http.StatusText(status))
	}
	return err
}

// maxProbeBody bounds what Get reads of an answer, in bytes.
const maxProbeBody = 1 << 20

// AskLocal asks as HTTP does, and returns what was answered.
func AskLocal(ctx context.Context, address, path string) (status int, body []byte, err error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return 0, nil, fmt.Errorf("%q is no address of the form host:port: %w", address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	url := "http://" + onThisMachine(address) + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	// No proxy: the server is on this machine.
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, nil, fmt.Errorf("asking %s: %w", url, err)
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(response.Body, maxProbeBody)); err != nil {
		return 0, nil, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return response.StatusCode, body, nil
}

// onThisMachine is where to ask a server that listens at the address.
func onThisMachine(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
