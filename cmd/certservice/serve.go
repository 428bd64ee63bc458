package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
)

// serve runs the service until ctx ends.
func serve(ctx context.Context, s settings, log *slog.Logger) error {
	program.ServerGC()
	hangup := make(chan os.Signal, 1) // before anything takes time: until then SIGHUP ends the program
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	identity, err := mtls.Load(s.files)
	if err != nil {
		return err
	}
	identity.LogWarnings(log)
	metrics := certservice.NewMetrics(program.Version())
	watcher, err := mtls.Watch(ctx, s.files, identity, log, func(next *mtls.Identity, err error) {
		metrics.CountIdentityReload(err)
		if err == nil {
			next.LogWarnings(log)
		}
	})
	if err != nil {
		return err
	}
	metrics.ObserveCertificate(func() *x509.Certificate { return watcher.Current().Certificate.Leaf })

	cpu := certservice.NewCPU()
	configuration := newConfiguration(s, cpu, metrics, log)
	// A bad file is logged there and does not end the service: like the ONAP server, it is not
	// ready until the file is fixed.
	_ = configuration.Reload("start")
	go watchConfiguration(ctx, configuration, log)
	go func() {
		for range hangup {
			_ = configuration.Reload("SIGHUP") // logged there
		}
	}()

	strangers := certservice.NewStrangers(log)
	defer strangers.Summarise()
	handler := certservice.NewHandler(certservice.HandlerConfig{
		Directory:            configuration,
		ClientRoots:          func() *x509.CertPool { return watcher.Current().Pool() },
		MaxInFlight:          s.maxInFlight,
		MaxInFlightPerClient: s.maxPerClient,
		MaxRSABits:           s.maxRSABits,
		CPU:                  cpu,
		Timeout:              s.requestTimeout,
		Metrics:              metrics,
		Identity:             func() *tls.Certificate { return &watcher.Current().Certificate },
		Strangers:            strangers,
		Log:                  log,
	})
	return listen(ctx, s, watcher, handler, certservice.ServerConfig{
		Verify:            handler.Verify,
		Capacity:          certservice.NewCapacity(s.maxConnections),
		ReadHeaderTimeout: s.readHeaderTimeout,
		RequestTimeout:    s.requestTimeout,
		IdleTimeout:       s.idleTimeout,
		ShutdownTimeout:   s.graceTime,
		Metrics:           metrics,
		Strangers:         strangers,
		Log:               log,
	})
}

// listen opens the ports and serves both.
func listen(
	ctx context.Context, s settings, watcher *mtls.Watcher, handler *certservice.Handler, cfg certservice.ServerConfig,
) error {
	clientAuth := tls.RequestClientCert
	if s.handshakeAuth {
		clientAuth = tls.RequireAndVerifyClientCert
	}
	cfg.TLS = watcher.ServerConfig(clientAuth)
	api, err := listenOn("HTTPS_PORT", net.JoinHostPort("", strconv.Itoa(s.httpsPort)))
	if err != nil {
		return err
	}
	log := cfg.Log.With("version", program.Version(), "https", api.Addr().String(), "connections",
		cfg.Capacity.Connections())
	var plain net.Listener
	if s.metricsAddr != "" {
		if plain, err = listenOn("METRICS_ADDR", s.metricsAddr); err != nil {
			api.Close()
			return err
		}
		log = log.With("http", plain.Addr().String())
	}
	log.Info("serving")
	return certservice.ServeBoth(ctx, api, plain, handler, cfg)
}

// listenOn names the variable to change when the port cannot be opened.
func listenOn(variable, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: another process already listens on %s: stop it, or set another port", variable,
			address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: this user may not listen on %s: want a port from 1024", variable, address)
	}
	return nil, fmt.Errorf("%s: %w", variable, err)
}

func newConfiguration(s settings, cpu *certservice.CPU, m *certservice.Metrics,
	log *slog.Logger) *certservice.Configuration {
	return certservice.NewConfiguration(s.cmpServersPath, certservice.CMPBuilder(certservice.CMPOptions{
		Connections: s.maxInFlight, ResponseTrust: s.responseTrust,
		RequestTimeout: s.requestTimeout, CPU: cpu, Log: log,
	}), m, log)
}

// watchConfiguration follows the file. Without that the
// service still serves, and reloads on request.
func watchConfiguration(ctx context.Context, c *certservice.Configuration, log *slog.Logger) {
	if err := c.Watch(ctx); err != nil {
		log.Error("changes of the configuration will not be noticed", "error", err.Error())
	}
}

// checkFiles returns the faults of the files that the environment names, and logs warnings.
func checkFiles(s settings, log *slog.Logger) []string {
	var faults []string
	identity, err := mtls.Load(s.files)
	if err == nil {
		identity.LogWarnings(log)
	} else if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			faults = append(faults, err.Error())
		}
	} else {
		faults = append(faults, err.Error())
	}
	for _, fault := range newConfiguration(s, nil, nil, log).Check() {
		faults = append(faults, fmt.Sprintf("CMP_SERVERS_PATH %q: %s", s.cmpServersPath, fault))
	}
	return faults
}
