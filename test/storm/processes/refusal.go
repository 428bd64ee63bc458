package main

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// refusal measures the processor time that certservice takes for a client that it refuses: the connection, the
// handshake with both certificates, and the 503.
func refusal(bin string) time.Duration {
	const refusals, atOnce = 2000, 8
	dir := fixture.Must(os.MkdirTemp("", "certfetcher-storm-"))
	defer os.RemoveAll(dir)
	stack := fixture.Must(fixture.StartStack(bin, dir, "DEVCA_FAULT=slow:50s", "MAX_IN_FLIGHT=1", "MAX_QUEUED=0"))
	defer stack.Stop()
	client := &http.Client{Timeout: 30 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: chaos.Identity(stack.Dir)}}
	request := chaos.Enrolment(stack.URL+fixture.CAName, "ECDSA-P256")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _, _ = client.Do(request.Clone(ctx)) }() // has the only slot until it is cancelled
	time.Sleep(time.Second)
	before := chaos.ProcessorTime(stack.CertService.Process.Pid)
	chaos.Together(refusals, atOnce, func(int) {
		fixture.Must(0, chaos.Ask(client, request, http.StatusServiceUnavailable))
	})
	return (chaos.ProcessorTime(stack.CertService.Process.Pid) - before) / refusals
}
