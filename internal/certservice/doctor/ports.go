package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/program"
)

// ports checks whether the service could listen. Nothing here keeps a service from starting at the
// same time, and one that runs sees a handshake and a scrape at most.
func (d *doctor) ports(ctx context.Context, own *x509.Certificate) {
	if !d.skipFaulty(checkHTTPS, "HTTPS_PORT") && d.HTTPSPort != 0 {
		address := net.JoinHostPort("", strconv.Itoa(d.HTTPSPort))
		if own == nil && errors.Is(bind(address), syscall.EADDRINUSE) {
			d.Skip(checkHTTPS, "somebody listens there; whether it is this service is not known, as its certificate "+
				"cannot be read")
		} else {
			d.port(checkHTTPS, "HTTPS_PORT", address, func() bool { return d.shows(ctx, d.HTTPSPort, own) })
		}
	}
	if !d.skipFaulty(checkMetrics, "METRICS_ADDR") && d.MetricsAddress != "" {
		d.port(checkMetrics, "METRICS_ADDR", d.MetricsAddress, func() bool {
			_, body, err := program.AskLocal(ctx, d.MetricsAddress, "/metrics")
			return err == nil && bytes.Contains(body, []byte("\ncertservice_build_info{"))
		})
	}
}

func (d *doctor) port(check, variable, address string, served func() bool) {
	err := bind(address)
	switch {
	case err == nil:
		d.OK(check, "%s is free", address)
	case errors.Is(err, syscall.EADDRINUSE) && served():
		d.OK(check, "%s is served by a running certservice", address)
	case errors.Is(err, syscall.EADDRINUSE):
		d.fail(check, variable+" "+address+" is in use by another program, or by a certservice with another "+
			"certificate",
			"stop what listens there, or give another port in "+variable)
	case errors.Is(err, syscall.EACCES):
		d.fail(check, variable+" "+address+": this user may not listen there",
			"give a port from 1024 on in "+variable)
	default:
		d.fail(check, variable+" "+address+" cannot be used: "+files.Reason(err).Error(),
			"give an address of this pod in "+variable+", or :PORT for all of them")
	}
}

// shows tells whether who listens on a port here shows our certificate. Nothing else is trusted, and the
// time does not count, so that a service of ours sees a handshake without a fault.
func (d *doctor) shows(ctx context.Context, port int, own *x509.Certificate) bool {
	ctx, cancel := context.WithTimeout(ctx, d.NetworkTimeout)
	defer cancel()
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12, ServerName: "localhost",
		Time: func() time.Time { return own.NotBefore }}
	config.RootCAs.AddCert(own)
	switch {
	case len(own.DNSNames) > 0:
		config.ServerName = own.DNSNames[0]
	case len(own.IPAddresses) > 0:
		config.ServerName = own.IPAddresses[0].String()
	}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	if err == nil {
		conn.Close()
		return true
	}
	other, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok && other.UnverifiedCertificates[0].Equal(own)
}

// bind tells whether an address could be listened on, without listening: until a socket listens, it
// keeps no other that may share its address from doing so.
func bind(address string) error {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	family, socketAddress := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: tcp.Port})
	if tcp.IP != nil && tcp.IP.To4() != nil {
		family = syscall.AF_INET
		socketAddress = &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}
	} else if tcp.IP != nil {
		socketAddress = &syscall.SockaddrInet6{Port: tcp.Port, Addr: [16]byte(tcp.IP.To16())}
	}
	socket, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if errors.Is(err, syscall.EAFNOSUPPORT) && tcp.IP == nil {
		socketAddress = &syscall.SockaddrInet4{Port: tcp.Port}
		socket, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	}
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return syscall.Bind(socket, socketAddress)
}
