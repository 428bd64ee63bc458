package e2e

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// secret is what the CertService of startWithDevCA shares with devca.
const secret = "the-shared-secret-of-this-test"

// devca [FAULTS] starts a CertService that asks a new devca with these faults.
func startWithDevCA(ts *testscript.TestScript, _ bool, args []string) {
	faults, err := devca.ParseFaults(strings.Join(args, ""))
	ts.Check(err)
	authority, err := devca.New(devca.Config{Secret: []byte(secret), Faults: faults})
	ts.Check(err)
	server := httptest.NewServer(authority)
	ts.Defer(server.Close)
	build := certservice.CMPBuilder(certservice.CMPOptions{Log: slog.New(slog.DiscardHandler)})
	asks, err := build(certservice.Server{
		CAName: fixture.CAName, URL: server.URL, IssuerDN: "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		IAK: secret, RV: devca.DefaultReference, Protection: certservice.ProtectionPBMSHA256,
	})
	ts.Check(err)
	startService(ts, service.Options{Authority: asks})
	given(ts).authority = authority
}

// revoked fails unless devca was told that a certificate of its is not taken.
func revoked(ts *testscript.TestScript, neg bool, _ []string) {
	if told := given(ts).authority.Stats().Revoked; (told > 0) == neg {
		ts.Fatalf("devca has revoked %d certificates", told)
	}
}

// proxy starts a proxy whose CONNECT leads to the CertService, whatever the name, and sets PROXY to its address.
func startProxy(ts *testscript.TestScript, _ bool, _ []string) {
	_, address, _ := strings.Cut(strings.TrimSuffix(given(ts).service.URL, "/v1/certificate/"), "//")
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server, err := net.Dial("tcp", address)
		if err != nil || r.Method != http.MethodConnect {
			panic(http.ErrAbortHandler)
		}
		defer server.Close()
		conn := hijack(w)
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(server, conn)
			server.Close()
		}()
		_, _ = io.Copy(conn, server)
	}))
	ts.Defer(proxy.Close)
	ts.Setenv("PROXY", proxy.Listener.Addr().String())
}
