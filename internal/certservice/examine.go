package certservice

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// This file has what the doctor looks at. None of it changes or issues anything.

// Servers are what a cmpServers.json describes. An entry with a fault does not make the others useless.
type Servers struct {
	Usable   []Server
	Faults   Faults   // of the entries left out
	Warnings []string // each with its place
}

// ReadServers reads a cmpServers.json as a Configuration does. The error is about the file as a
// whole, and is Faults when the file could be read. responseTrust is for those that name none.
func ReadServers(path, responseTrust string) (Servers, error) {
	file, err := loadServers(path, readBounded)
	all := Servers{Faults: file.Faults, Warnings: file.Warnings}
	for _, s := range file.Servers {
		if s.ResponseTrust == "" {
			s.ResponseTrust = responseTrust
		}
		if _, err := cmp.New(s.cmpConfig(nil, nil, slog.New(slog.DiscardHandler))); err != nil {
			all.Faults = append(all.Faults, s.place+": "+err.Error())
			continue
		}
		all.Usable = append(all.Usable, s)
	}
	return all, err
}

// Ask asks the server for the CA's certificates, as package cmp does: TLS, the protection and the trust
// are those of an enrolment.
func (s Server) Ask(ctx context.Context, timeout time.Duration, dialer *net.Dialer) (cmp.Information, error) {
	client := newHTTPClients(1).of(s)
	client.Transport.(*http.Transport).DialContext = dialer.DialContext
	defer client.CloseIdleConnections()
	cfg := s.cmpConfig(client, nil, slog.New(slog.DiscardHandler))
	cfg.MessageTimeout = timeout
	c, err := cmp.New(cfg)
	if err != nil {
		return cmp.Information{}, err
	}
	return c.Ask(ctx)
}

// Certificates are the chain that the signer shows; nil: there is no signer.
func (s Signer) Certificates() []*x509.Certificate {
	signer := s.cmp()
	if signer == nil {
		return nil
	}
	return append([]*x509.Certificate{signer.Certificate}, signer.Chain...)
}

// Certificate is what is shown to a server that asks for one; nil: nothing is.
func (t TLS) Certificate() *x509.Certificate {
	if t.identity == nil {
		return nil
	}
	return t.identity.Leaf
}

// CRLReport is what the files of CLIENT_CRL_PATH hold.
type CRLReport struct {
	Issuers       []string // whose CRLs are in use
	Faults        Faults   // of files
	Unused        []string // why some CRLs are not used
	Expired, Soon []string // issuers and ends of CRLs that have expired or do so soon
}

// Examine reads the files as Reload does, and puts nothing to use.
func (r *Revocations) Examine() CRLReport {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	read := r.read()
	var report CRLReport
	for _, file := range read {
		report.Unused = append(report.Unused, file.unused...)
	}
	slices.Sort(report.Unused)
	set := r.newSet()
	report.Faults = set.fill(read)
	for _, c := range set.series() {
		report.Issuers = append(report.Issuers, c.issuer)
		switch stage, _ := c.stageAt(r.now()); stage {
		case crlExpired:
			report.Expired = append(report.Expired, c.end())
		case crlEndsSoon:
			report.Soon = append(report.Soon, c.end())
		}
	}
	return report
}

// MemoryLimit is what this process may use, in bytes; 0: nothing limits it.
func MemoryLimit() int64 {
	if limit := limitedMemory(); limit <= mostLimit {
		return limit
	}
	return 0
}

// OpenFileLimit is how many files this process may have open.
func OpenFileLimit() int { return openFileLimit() }

// FilesFor is how many open files a number of connections needs.
func FilesFor(connections int) int { return connections + filesBeside }

// MemoryFor is what a number of connections takes at most, in bytes.
func MemoryFor(connections int) int64 { return int64(connections) * memoryPerConnection }
