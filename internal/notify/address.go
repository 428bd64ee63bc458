package notify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// starter makes a server begin TLS on a connection on which another protocol is spoken first. It reads not a byte more
// than what comes before TLS.
type starter func(conn net.Conn) error

// protocol is what a scheme stands for.
type protocol struct {
	port  string // that holds where none is given; empty: one has to be given
	start starter
}

// protocols by scheme. Where start is nil, TLS is spoken from the first byte.
var protocols = map[string]protocol{
	"tls": {}, "https": {port: "443"}, "ldaps": {port: "636"}, "imaps": {port: "993"}, "smtps": {port: "465"},
	"postgres": {"5432", startPostgreSQL}, "postgresql": {"5432", startPostgreSQL},
	"smtp": {"25", startSMTP}, "imap": {"143", startIMAP}, "ldap": {"389", startLDAP},
}

// startable are the schemes of protocols that TLS begins after.
func startable() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(protocols)) {
		if protocols[name].start != nil && name != "postgresql" {
			names = append(names, name+"://")
		}
	}
	return strings.Join(names, ", ")
}

// parseAddress reads host:port, or scheme://host[:port].
func parseAddress(text string) (address string, p protocol, err error) {
	want := "want host:port, or one of " + startable() + " before it"
	scheme, _, found := strings.Cut(text, "://")
	if !found {
		host, port, err := net.SplitHostPort(text)
		if err != nil || host == "" || port == "" {
			return "", protocol{}, fmt.Errorf("has address %q, %s", text, want)
		}
		return text, protocol{}, nil
	}
	p, known := protocols[strings.ToLower(scheme)]
	if !known {
		return "", protocol{}, fmt.Errorf("has the protocol %q, which is not known: %s; "+
			"without one TLS has to begin at once", scheme, want)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.User != nil: // which may hold a password
		return "", protocol{}, errors.New("has no usable address, " + want)
	case u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", protocol{}, fmt.Errorf("has address %q, %s, and nothing behind it", text, want)
	}
	port := u.Port()
	if port == "" {
		port = p.port
	}
	if port == "" {
		return "", protocol{}, fmt.Errorf("has address %q without a port, %s", text, want)
	}
	return net.JoinHostPort(u.Hostname(), port), p, nil
}

// IsPostgreSQL tells whether an address, as VerifyConfig has it, is that of a PostgreSQL.
func IsPostgreSQL(address string) bool {
	scheme, _, found := strings.Cut(address, "://")
	return found && strings.HasPrefix(strings.ToLower(scheme), "postgres")
}

// begin has the server begin TLS, within the time of ctx.
func (p protocol) begin(ctx context.Context, conn net.Conn) error {
	if p.start == nil {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := p.start(conn); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("asking for TLS: %w", err)
	}
	return nil
}
