package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/mtls"
)

// maxAnswer bounds one answer with its headers.
const maxAnswer = 256 << 10

// conversation is one connection at a time to the CertService, on which GETs follow one another. It is made by
// hand because each step is a check of its own, and what the server showed has to be known when it fails.
type conversation struct {
	d             *doctor
	target, proxy *url.URL // proxy may be nil
	config        *tls.Config

	conn  *tls.Conn // nil: not connected
	limit *io.LimitedReader
	in    *bufio.Reader

	asked    bool // the server asked for a client certificate
	mismatch bool // and named CAs, of which none issued ours
}

func newConversation(d *doctor, target, proxy *url.URL, identity *mtls.Identity) *conversation {
	c := &conversation{d: d, target: target, proxy: proxy, config: identity.ClientConfig()}
	c.config.Time = d.Now
	c.config.ServerName = strings.TrimSuffix(target.Hostname(), ".")
	c.config.NextProtos = []string{"http/1.1"}
	show := c.config.GetClientCertificate
	c.config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := show(request)
		c.asked = true
		c.mismatch = err == nil && request.SupportsCertificate(cert) != nil
		return cert, err
	}
	return c
}

// proxyRefusal is a proxy's answer to CONNECT.
type proxyRefusal struct{ status string }

func (e *proxyRefusal) Error() string { return fmt.Sprintf("the proxy answers %q", e.status) }

// connect makes the TCP connection, through the proxy where there is one, and the TLS handshake. The
// connection is kept after an error of TLS as well: its state tells what the server showed.
func (c *conversation) connect(ctx context.Context) error {
	c.close()
	first := c.target
	if c.proxy != nil {
		first = c.proxy
	}
	raw, err := c.d.Dial(ctx, "tcp", net.JoinHostPort(first.Hostname(), portOf(first)))
	if err != nil {
		return err
	}
	if c.proxy != nil {
		if raw, err = c.tunnel(ctx, raw); err != nil {
			return err
		}
	}
	c.conn = tls.Client(raw, c.config)
	c.limit = &io.LimitedReader{R: c.conn, N: maxAnswer}
	c.in = bufio.NewReader(c.limit)
	return c.conn.HandshakeContext(ctx)
}

// tunnel asks the proxy for a connection to the CertService (RFC 9110, section 9.3.6). The proxy is shown no client
// certificate. raw is closed after an error.
func (c *conversation) tunnel(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if c.proxy.Scheme == "https" {
		outer := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.config.RootCAs, ServerName: c.proxy.Hostname(), Time: c.d.Now})
		if err := outer.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, errors.New("TLS with the proxy: " + err.Error()) // not wrapped: it is not the CertService's
		}
		raw = outer
	}
	address := net.JoinHostPort(c.target.Hostname(), portOf(c.target))
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{"User-Agent": {c.d.UserAgent}}}
	if user := c.proxy.User; user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	stop := bound(ctx, raw)
	defer stop()
	if err := request.Write(raw); err != nil {
		raw.Close()
		return nil, err
	}
	// Nothing comes after the answer before we say something, so that nothing is lost in the buffer.
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(raw, maxAnswer)), request)
	if err != nil {
		raw.Close()
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		raw.Close()
		return nil, &proxyRefusal{response.Status}
	}
	return raw, nil
}

// bound makes reads and writes on conn end with ctx, until stop is called.
func bound(ctx context.Context, conn net.Conn) (stop func()) {
	release := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if release() {
			_ = conn.SetDeadline(time.Time{})
		}
	}
}

// answer is what a server said.
type answer struct {
	status   int
	message  string // CertService's errorMessage, or "" when the answer is none of its own
	location string // of a redirect
	// ahead is by how much our clock is before the server's, known to within a second.
	ahead time.Duration
	dated bool
}

// said words the status, with the message where there is one.
func (a answer) said() string {
	text := fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
	if a.message != "" {
		text += fmt.Sprintf(" (%q)", a.message)
	}
	return text
}

// get sends one GET with no headers that could make the server issue something.
func (c *conversation) get(ctx context.Context, u *url.URL) (answer, error) {
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return answer{}, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return answer{}, err
	}
	// By this, and by the CSR that is missing, the CertService tells a trial from a client that does not work.
	request.Header.Set("User-Agent", c.d.UserAgent+" (doctor)")
	request.Header.Set("Accept", "application/json")
	stop := bound(ctx, c.conn)
	defer stop()
	c.limit.N = maxAnswer
	sent := c.d.Now()
	writeErr := request.Write(c.conn)
	// Read also after a failed write: a TLS 1.3 server judges our certificate when the handshake is over for
	// us (RFC 8446, section 4.4.2.4), and the reason is in the alert that it sent before it hung up.
	response, err := http.ReadResponse(c.in, request)
	if err != nil {
		if _, refused := alertOf(err); writeErr != nil && !refused {
			err = writeErr
		}
		c.close()
		return answer{}, err
	}
	received := c.d.Now()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.Close {
		c.close()
	}
	a := answer{status: response.StatusCode, message: messageOf(body), location: response.Header.Get("Location")}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		// The date is cut off to whole seconds (RFC 9110, section 5.6.7), and was written between the two.
		a.ahead, a.dated = sent.Add(received.Sub(sent)/2).Sub(date.Add(500*time.Millisecond)), true
	}
	return a, nil
}

func (c *conversation) close() {
	if c.conn != nil {
		_ = c.conn.NetConn().Close() // without close_notify, which can wait for a dead peer
		c.conn = nil
	}
}

// messageOf is the errorMessage of an answer of the API.
func messageOf(body []byte) string {
	var document struct {
		ErrorMessage string `json:"errorMessage"`
	}
	if json.Unmarshal(body, &document) != nil {
		return ""
	}
	const most = 300
	return string([]rune(document.ErrorMessage)[:min(len([]rune(document.ErrorMessage)), most)])
}

// alertOf finds the TLS alert (RFC 8446, section 6) that the other side sent.
func alertOf(err error) (string, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return "", false
	}
	return strings.TrimPrefix(op.Err.Error(), "tls: "), true
}
