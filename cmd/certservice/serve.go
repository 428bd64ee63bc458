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
	configuration := certservice.NewConfiguration(s.cmpServersPath, cmpBuilder(s, cpu, log), metrics, log)
	// A bad file is logged there and does not end the service: like the ONAP server's, it is not ready until
	// the file is mended.
	_ = configuration.Reload("start")
	go watchConfiguration(ctx, configuration, log)
	go reloadOn(ctx, hangup, configuration)

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

// listen opens the ports and serves both. The plain one stays open until the other has finished, for the
// probes of a pod that is shutting down.
func listen(ctx context.Context, s settings, watcher *mtls.Watcher, handler *certservice.Handler, cfg certservice.ServerConfig) error {
	log := cfg.Log
	clientAuth := tls.RequestClientCert
	if s.handshakeAuth {
		clientAuth = tls.RequireAndVerifyClientCert
	}
	api, err := listenOn("HTTPS_PORT", net.JoinHostPort("", strconv.Itoa(s.httpsPort)))
	if err != nil {
		return err
	}
	cfg.TLS = watcher.ServerConfig(clientAuth)
	log = log.With("version", program.Version(), "https", api.Addr().String(), "connections", cfg.Capacity.Connections())
	if s.metricsAddr == "" {
		log.Info("serving")
		return certservice.Serve(ctx, api, handler, cfg)
	}

	plain, err := listenOn("METRICS_ADDR", s.metricsAddr)
	if err != nil {
		api.Close()
		return err
	}
	log.Info("serving", "http", plain.Addr().String())
	ctx, stopAPI := context.WithCancel(ctx)
	plainCtx, stopPlain := context.WithCancel(context.WithoutCancel(ctx))
	plainDone := make(chan error, 1)
	go func() {
		defer stopAPI()
		plainDone <- certservice.ServePlain(plainCtx, plain, handler.Ops(), cfg)
	}()
	apiErr := certservice.Serve(ctx, api, handler, cfg)
	stopPlain()
	return errors.Join(apiErr, <-plainDone)
}

// listenOn names the variable to change when the port is taken, or not to be had.
func listenOn(variable, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: another process listens on %s already: stop it, or set another port", variable, address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: this user may not listen on %s: want a port from 1024", variable, address)
	}
	return nil, fmt.Errorf("%s: %w", variable, err)
}

func cmpBuilder(s settings, cpu *certservice.CPU, log *slog.Logger) func(certservice.Server) (certservice.Authority, error) {
	return certservice.CMPBuilder(certservice.CMPOptions{
		Connections: s.maxInFlight, ResponseTrust: s.responseTrust, RequestTimeout: s.requestTimeout, CPU: cpu, Log: log,
	})
}

// watchConfiguration follows the file. Without that the service still serves, and reloads when told to.
func watchConfiguration(ctx context.Context, c *certservice.Configuration, log *slog.Logger) {
	if err := c.Watch(ctx); err != nil {
		log.Error("changes of the configuration will not be seen", "error", err.Error())
	}
}

func reloadOn(ctx context.Context, hangup <-chan os.Signal, c *certservice.Configuration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			_ = c.Reload("SIGHUP") // logged there
		}
	}
}

// checkFiles returns what is wrong with the files that the environment names, and logs what only needs
// attention.
func checkFiles(s settings, log *slog.Logger) []string {
	var faults []string
	if identity, err := mtls.Load(s.files); err != nil {
		faults = append(faults, texts(err)...)
	} else {
		identity.LogWarnings(log)
	}
	return append(faults, checkServers(s, log)...)
}

func checkServers(s settings, log *slog.Logger) []string {
	place := fmt.Sprintf("CMP_SERVERS_PATH %q: ", s.cmpServersPath)
	file, err := certservice.LoadServers(s.cmpServersPath)
	for _, warning := range file.Warnings {
		log.Warn("the configuration needs attention", "path", s.cmpServersPath, "warning", warning)
	}
	list := file.Faults
	if whole, ok := errors.AsType[certservice.Faults](err); ok {
		list = whole
	} else if err != nil {
		return []string{place + err.Error()}
	}
	var faults []string
	for _, fault := range list {
		faults = append(faults, place+fault)
	}
	build := cmpBuilder(s, nil, log)
	for _, server := range file.Servers {
		if _, err := build(server); err != nil {
			faults = append(faults, place+server.CAName+": "+err.Error())
		}
	}
	return faults
}

// texts returns the errors that were joined in one.
func texts(err error) []string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, e.Error())
	}
	return all
}
