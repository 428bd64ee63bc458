package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
)

// Time limits of the server. Answers may be slow on purpose.
const (
	readTimeout     = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 10 * time.Second
)

// mostConnections leaves room for certservice with its default settings, and for others.
const mostConnections = 1024

// serve runs the CA until ctx ends, and then finishes what is in flight.
func serve(ctx context.Context, s settings, log *slog.Logger) error {
	program.ServerGC()
	s.ca.Log = log
	ca, err := devca.New(s.ca)
	if err != nil {
		return fmt.Errorf("making the CA: %w", err)
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("DEVCA_ADDR cannot be used: %w", err)
	}
	defer listener.Close()
	if s.caFile != "" {
		if err := writeFile(s.caFile, ca.RootPEM()); err != nil {
			return fmt.Errorf("writing the root for DEVCA_CA_FILE: %w", err)
		}
	}
	bounded := program.ListenFairly(listener, mostConnections, nil)
	server := &http.Server{
		ConnState: bounded.ConnState, MaxHeaderBytes: 64 << 10,
		Handler: ca, ReadTimeout: readTimeout, WriteTimeout: readTimeout + s.ca.Faults.Slow, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelInfo),
	}
	log.Warn("DEVELOPMENT ONLY: this CA is not for production. It certifies all requests, and "+
		"its root is lost when it stops",
		"address", listener.Addr().String(), "root", pki.DN(ca.Root().RawSubject), "root_sha256",
		fmt.Sprintf("%x", sha256.Sum256(ca.Root().Raw)),
		"ca_file", s.caFile, "validity", s.ca.Validity, "response_protection",
		string(s.ca.ResponseProtection), "faults", s.faults)
	if !s.loopback {
		log.Warn("DEVELOPMENT ONLY: other machines can reach this CA, because DEVCA_ADDR says so", "address", s.addr)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(bounded) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping", "issued", ca.Stats().Issued)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return fmt.Errorf("finishing what is in flight: %w", errors.Join(err, server.Close()))
	}
	return nil
}

// writeFile writes a file as a whole or not at all: readers that wait for it to appear never see a part.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, after the rename
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
