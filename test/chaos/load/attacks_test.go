package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
)

// An attack runs in a process of its own and at the lowest priority: attackers stand for other machines, and share two
// processors with certservice and with the clients here.

// start begins an attack on the service, and returns what ends it.
func (a attack) start(s *service, identity string, scale int, more ...string) (stop func()) {
	s.t.Helper()
	cmd := exec.Command("nice", "-n", "19", os.Args[0])
	cmd.Env = append(os.Environ(), "LOAD_ATTACK="+a.name, "LOAD_TARGET="+s.target,
		"LOAD_IDENTITY="+identity, "LOAD_SCALE="+strconv.Itoa(scale))
	cmd.Env = append(cmd.Env, more...)
	cmd.Stderr = os.Stderr
	require.NoError(s.t, cmd.Start())
	return sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// attackForOthers is the process of an attack.
func attackForOthers() int {
	config := &tls.Config{InsecureSkipVerify: true} // whom an attacker trusts makes no difference
	if file := os.Getenv("LOAD_IDENTITY"); file != "" {
		identity, err := tls.LoadX509KeyPair(file, file)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		config.Certificates = []tls.Certificate{identity}
	}
	if os.Getenv("LOAD_PLAIN") != "" {
		config = nil
	}
	scale, err := strconv.Atoi(os.Getenv("LOAD_SCALE"))
	at := slices.IndexFunc(everyAttack(), func(a attack) bool { return a.name == os.Getenv("LOAD_ATTACK") })
	if err != nil || at < 0 {
		fmt.Fprintln(os.Stderr, "there is no such attack")
		return 1
	}
	everyAttack()[at].run(context.Background(), newAttacker(os.Getenv("LOAD_TARGET"), config, scale))
	return 0
}

// attack is what somebody who wants harm does until ctx ends. Its connections come from the addresses 127.0.9.x, which
// stand for other machines than those of the well-behaved.
type attack struct {
	name string
	run  func(ctx context.Context, a *attacker)
}

// attacker is where an attack goes, and as whom.
type attacker struct {
	target string
	tls    *tls.Config // with a certificate or without
	scale  int         // the number of connections that an attack holds
	pace   <-chan time.Time
}

// newConnections is how many connections all attackers together begin in a second. They share two processors with
// certservice and with the clients, and their part of a handshake costs as much as certservice's.
const newConnections = 500

func newAttacker(target string, config *tls.Config, scale int) *attacker {
	return &attacker{target, config, scale, time.Tick(time.Second / newConnections)}
}

// of is the same attacker with another number of connections.
func (a *attacker) of(scale int) *attacker {
	other := *a
	other.scale = max(1, scale)
	return &other
}

func (a *attacker) dial(i int) (net.Conn, error) {
	return from(fmt.Sprintf("127.0.9.%d", 1+i%4)).Dial("tcp", a.target)
}

func (a *attacker) dialTLS(i int) (net.Conn, error) {
	conn, err := a.dial(i)
	if err != nil || a.tls == nil {
		return conn, err
	}
	config := a.tls.Clone()
	config.ServerName = "127.0.0.1"
	client := tls.Client(conn, config)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err := client.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return client, nil
}

// hold keeps scale connections open at once, each treated by use, and makes new ones in place of those that end.
func (a *attacker) hold(ctx context.Context, dial func(int) (net.Conn, error), use func(context.Context, net.Conn)) {
	var workers sync.WaitGroup
	for i := range a.scale {
		workers.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-a.pace:
				case <-ctx.Done():
					return
				}
				conn, err := dial(i)
				if err == nil {
					stop := context.AfterFunc(ctx, func() { conn.Close() })
					use(ctx, conn)
					stop()
					conn.Close()
				}
			}
		})
	}
	workers.Wait()
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// untilClosed waits for the other side.
func untilClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

const requestLine = "GET /v1/certificate/RA HTTP/1.1\r\nHost: 127.0.0.1\r\n"

// everyAttack are the attacks, one of a client that needs a certificate, and all of them at once.
func everyAttack() []attack { return append(slices.Clone(attacks), reloads, largeKeys, together) }

// together makes all attacks at the same time.
var together = attack{"all attacks at once", func(ctx context.Context, a *attacker) {
	var running sync.WaitGroup
	for _, one := range attacks {
		running.Go(func() { one.run(ctx, a.of(a.scale/len(attacks))) })
	}
	running.Wait()
}}

// reloads asks for what costs more than an answer.
var reloads = attack{"reloads from 16 connections", func(ctx context.Context, a *attacker) {
	a.of(16).exchange(ctx, []byte("GET /reload HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
}}

// largeKeys has a request computed from 64 connections that costs much; LOAD_REQUEST is a file with all of it.
var largeKeys = attack{"requests with RSA-4096 keys from 64 connections", func(ctx context.Context, a *attacker) {
	request, err := os.ReadFile(os.Getenv("LOAD_REQUEST"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	a.of(64).exchange(ctx, request)
}}

// exchange sends a request again and again, each when the one before was answered.
func (a *attacker) exchange(ctx context.Context, request []byte) {
	a.hold(ctx, a.dialTLS, func(ctx context.Context, conn net.Conn) {
		for err := error(nil); err == nil && ctx.Err() == nil; {
			if _, err = conn.Write(request); err == nil {
				_, err = conn.Read(make([]byte, 16<<10))
			}
		}
	})
}

// repeat writes next again and again after first.
func repeat(ctx context.Context, conn net.Conn, first, next string, pause time.Duration) {
	_, err := io.WriteString(conn, first)
	for err == nil && ctx.Err() == nil {
		_, err = io.WriteString(conn, next)
		rest(ctx, pause)
	}
}

// stalls writes a text on TLS connections and then waits.
func stalls(text string) func(context.Context, *attacker) {
	return func(ctx context.Context, a *attacker) {
		a.hold(ctx, a.dialTLS, func(_ context.Context, conn net.Conn) { stall(conn, text) })
	}
}

func stall(conn net.Conn, text string) {
	if _, err := io.WriteString(conn, text); err == nil {
		untilClosed(conn)
	}
}

func stallsHeaders(size int) func(context.Context, *attacker) {
	return stalls(requestLine + "X-Long: " + strings.Repeat("a", size))
}

var attacks = []attack{
	{"idle TLS connections", stalls("")},
	{"half-open connections", func(ctx context.Context, a *attacker) {
		a.hold(ctx, a.dial, func(_ context.Context, conn net.Conn) { untilClosed(conn) })
	}},
	{"handshakes that stand still", func(ctx context.Context, a *attacker) {
		// A record of 16 KiB with a handshake message of which nothing more comes.
		start := "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + strings.Repeat("\x00", 8<<10)
		a.hold(ctx, a.dial, func(_ context.Context, conn net.Conn) { stall(conn, start) })
	}},
	{"headers that drip", func(ctx context.Context, a *attacker) {
		a.hold(ctx, a.dialTLS, func(ctx context.Context, conn net.Conn) {
			repeat(ctx, conn, requestLine, "X-1: 1\r\n", 200*time.Millisecond)
		})
	}},
	{"stalled headers of 60 KB", stallsHeaders(60 << 10)},
	{"stalled headers of 120 KB", stallsHeaders(120 << 10)},
	{"many short headers that stall", stalls(requestLine + strings.Repeat("a: b\r\n", 10_000))},
	{"a flood of requests", func(ctx context.Context, a *attacker) {
		stalls(requestLine+"\r\n")(ctx, a.of(min(a.scale, 32)))
	}},
	{"pipelined requests whose answers no one reads", func(ctx context.Context, a *attacker) {
		a.hold(ctx, a.dialTLS, func(ctx context.Context, conn net.Conn) {
			repeat(ctx, conn, "", strings.Repeat(requestLine+"\r\n", 500), 0)
			rest(ctx, time.Second)
		})
	}},
	{"bodies that never come, or never end", func(ctx context.Context, a *attacker) {
		const head = " HTTP/1.1\r\nHost: 127.0.0.1\r\n"
		a.hold(ctx, a.dialTLS, func(ctx context.Context, conn net.Conn) {
			stall(conn, "POST /v1/certificate/RA"+head+"Content-Length: 9000000000\r\n\r\n")
			again, err := a.dialTLS(1)
			if err != nil {
				return
			}
			defer again.Close()
			defer context.AfterFunc(ctx, func() { again.Close() })()
			repeat(ctx, again, "POST /reload"+head+"Transfer-Encoding: chunked\r\n\r\n",
				"2000\r\n"+strings.Repeat("x", 0x2000)+"\r\n", 0)
		})
	}},
	{"HTTP/2 streams with a window of 0", func(ctx context.Context, a *attacker) {
		h2 := a.of(8)
		if a.tls != nil {
			h2.tls = a.tls.Clone()
			h2.tls.NextProtos = []string{"h2"}
		}
		h2.hold(ctx, h2.dialTLS, stallStreams)
	}}}
