// Package probe asks a server of ours on this machine how it is, for health checks in images that have no
// shell and no curl.
package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// timeout is shorter than the second that Kubernetes gives a probe by default.
const timeout = 900 * time.Millisecond

// HTTP asks for a path at an address as a server is given it: host:port, or :port for all addresses, which
// is asked on loopback. Any status that ok allows is success.
func HTTP(ctx context.Context, address, path string, ok func(status int) bool) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address of the form host:port: %w", address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return err
	}
	// No proxy: the server is on this machine.
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("asking http://%s%s: %w", net.JoinHostPort(host, port), path, err)
	}
	response.Body.Close()
	if !ok(response.StatusCode) {
		return fmt.Errorf("http://%s%s answered %s", net.JoinHostPort(host, port), path, response.Status)
	}
	return nil
}
