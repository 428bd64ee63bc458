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
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/token"
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
	changes := files.NewWatcher(ctx, log)
	watcher := mtls.Watch(ctx, changes, s.files, identity, log, func(next *mtls.Identity, err error) {
		metrics.CountIdentityReload(err)
		if err == nil {
			next.LogWarnings(log)
		}
	})
	metrics.ObserveCertificate(func() *x509.Certificate { return watcher.Current().Certificate.Leaf })

	cpu := certservice.NewCPU()
	configuration := newConfiguration(s, cpu, metrics, log)
	// A bad file is logged there and does not end the service: like the ONAP server, it is not
	// ready until the file is fixed.
	_ = configuration.Reload("start")
	go configuration.Watch(ctx, changes)
	rules := startPolicy(ctx, s, changes, metrics, log)
	tokens, err := startTokens(ctx, s, changes, metrics, log)
	if err != nil {
		return err
	}
	revocations := startRevocations(ctx, s, changes, metrics, log)

	strangers := certservice.NewStrangers(log)
	defer strangers.Summarise()
	capacity := certservice.NewCapacity(s.maxConnections)
	if s.maxQueued < 0 {
		s.maxQueued = capacity.Queued()
	}
	cfg := certservice.HandlerConfig{
		Directory:            configuration,
		ClientRoots:          func() *x509.CertPool { return watcher.Current().Pool() },
		Credentials:          s.credentials,
		Policy:               rules,
		Admins:               s.admins,
		Revocations:          revocations,
		MaxInFlight:          s.maxInFlight,
		MaxInFlightPerClient: s.maxPerClient,
		MaxQueued:            s.maxQueued,
		MaxRSABits:           s.maxRSABits,
		CPU:                  cpu,
		Timeout:              s.requestTimeout,
		Metrics:              metrics,
		Identity:             func() *tls.Certificate { return &watcher.Current().Certificate },
		Strangers:            strangers,
		NoStatus:             s.noStatus,
		Log:                  log,
	}
	if revocations != nil {
		cfg.Reloads = append(cfg.Reloads, revocations.Reload)
	}
	if tokens != nil {
		cfg.Tokens = tokens
		cfg.Reloads = append(cfg.Reloads, tokens.Reload)
	}
	handler := certservice.NewHandler(cfg)
	go func() {
		for range hangup {
			_ = handler.Reload("SIGHUP") // logged there
		}
	}()
	return listen(ctx, s, watcher, handler, certservice.ServerConfig{
		Authenticate:      handler.Authenticate,
		Capacity:          capacity,
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
	switch {
	case s.handshakeAuth:
		clientAuth = tls.RequireAndVerifyClientCert
	case s.credentials == certservice.TokenCredential:
		clientAuth = tls.NoClientCert
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
	program.ReportReady()
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

// startPolicy loads the policy; nil: there is none. With one that cannot be used the service is not
// ready, and allows nothing, until the file is fixed.
func startPolicy(ctx context.Context, s settings, changes *files.Watcher, m *certservice.Metrics,
	log *slog.Logger) *certservice.PolicyFile {
	if s.policyPath == "" {
		log.Warn("there is no policy: every client that is authenticated may ask for every name; set POLICY_PATH")
		return nil
	}
	file := certservice.NewPolicyFile(s.policyPath, m, log)
	_ = file.Reload("start") // logged there
	go file.Watch(ctx, changes)
	return file
}

// startTokens begins to read the keys of the issuer of tokens; nil: tokens do not count.
func startTokens(ctx context.Context, s settings, changes *files.Watcher, m *certservice.Metrics,
	log *slog.Logger) (*token.Verifier, error) {
	if s.credentials == certservice.CertificateCredential {
		return nil, nil
	}
	s.tokens.Log, s.tokens.Read = log, m.ObserveTokenKeys
	verifier, err := token.New(s.tokens)
	if err != nil {
		return nil, err
	}
	m.ExpectTokens()
	go verifier.Run(ctx, changes)
	return verifier, nil
}

// startRevocations reads and follows the CRLs; it returns nil when there are to be none. What is wrong
// with them is logged and does not end the service, as CLIENT_CRL_PROBLEM says what counts without.
func startRevocations(ctx context.Context, s settings, changes *files.Watcher, m *certservice.Metrics,
	log *slog.Logger) *certservice.Revocations {
	if s.crls.Paths == "" {
		return nil
	}
	r := newRevocations(s, m, log)
	_ = r.Reload("start")
	go r.Watch(ctx, changes)
	return r
}

func newRevocations(s settings, m *certservice.Metrics, log *slog.Logger) *certservice.Revocations {
	cfg := s.crls
	cfg.Metrics, cfg.Log = m, log
	return certservice.NewRevocations(cfg)
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
	if s.policyPath != "" {
		for _, fault := range certservice.NewPolicyFile(s.policyPath, nil, log).Check() {
			faults = append(faults, fmt.Sprintf("POLICY_PATH %q: %s", s.policyPath, fault))
		}
	}
	faults = append(faults, checkTokens(s, log)...)
	for _, fault := range newRevocations(s, nil, log).Check() {
		faults = append(faults, "CLIENT_CRL_PATH "+fault)
	}
	return faults
}

// checkTokens reads the keys of the issuer of tokens from their file, as the service would. No other
// server is asked, as for CMP servers: `certservice token check` does that.
func checkTokens(s settings, log *slog.Logger) []string {
	if s.credentials == certservice.CertificateCredential || s.tokens.Issuer == "" || s.tokens.Audience == "" {
		return nil // which is a fault of the environment, if it is one
	}
	if s.tokens.JWKSPath == "" {
		_, err := token.New(s.tokens)
		return faultTexts(err)
	}
	verifier, err := token.New(s.tokens)
	if err == nil {
		var warnings []string
		_, warnings, err = verifier.Check()
		for _, warning := range warnings {
			log.Warn("a key of the token issuer is not used", "error", warning)
		}
	}
	return faultTexts(err)
}

func faultTexts(err error) []string {
	if err != nil {
		return []string{err.Error()}
	}
	return nil
}
