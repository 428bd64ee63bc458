//go:build linux && amd64

package kill

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// authority is a CA that remembers its transactions, whatever a client says of them.
type authority struct {
	*devca.CA
	server *httptest.Server
	// secret is no other CA's: a client that another test left behind may ask at the port of its CA, now this one's.
	secret string

	mu           sync.Mutex
	open         int // connections
	transactions map[string]*transaction
	last         []byte // senderNonce of the last answer that is no error
}

// transaction is one whose request the CA did not refuse.
type transaction struct {
	serial    string // of the certificate; empty: none was issued
	confirmed bool
}

func newAuthority(faults string) *authority {
	secret := rand.Text()
	a := &authority{secret: secret, transactions: map[string]*transaction{}, CA: fixture.Must(devca.New(devca.Config{
		Secret: []byte(secret), Faults: fixture.Must(devca.ParseFaults(faults))}))}
	a.server = httptest.NewUnstartedServer(a)
	a.server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		a.mu.Lock()
		defer a.mu.Unlock()
		switch state {
		case http.StateNew:
			a.open++
		case http.StateClosed:
			a.open--
		}
	}
	a.server.Start()
	return a
}

// ServeHTTP has the CA answer, and notes the answer before it leaves.
func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // of a client that was killed meanwhile
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	recorded := httptest.NewRecorder()
	a.CA.ServeHTTP(recorded, r)
	request, err := cmp.ParsePKIMessage(body)
	answer, err2 := cmp.ParsePKIMessage(recorded.Body.Bytes())
	if err == nil && err2 == nil {
		a.note(request, answer)
	}
	w.Header().Set("Content-Type", recorded.Header().Get("Content-Type"))
	w.WriteHeader(recorded.Code)
	_, _ = w.Write(recorded.Body.Bytes())
}

func (a *authority) note(request, answer *cmp.PKIMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if answer.Body.Type == cmp.BodyError {
		return
	}
	a.last = answer.Header.SenderNonce
	id := fmt.Sprintf("%x", request.Header.TransactionID)
	t := a.transactions[id]
	switch content := answer.Body.Content.(type) {
	case *cmp.CertRepMessage:
		if t == nil {
			t = &transaction{}
			a.transactions[id] = t
		}
		if pair := content.Response[0].CertifiedKeyPair; pair != nil {
			t.serial = fixture.Must(x509.ParseCertificate(pair.Certificate)).SerialNumber.String()
		}
	case cmp.PKIConfirmContent:
		t.confirmed = true
	}
}

// settle waits until the CA has done what clients that have ended have sent. Connections are taken in their
// order, so that once it has served this one, it knows of all of theirs; and it closes each when it is done.
func (a *authority) settle() error {
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(a.server.URL)
	if err != nil {
		return err
	}
	answer.Body.Close()
	for end := time.Now().Add(chaos.Deadline); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		a.mu.Lock()
		open := a.open
		a.mu.Unlock()
		if open == 0 {
			return nil
		}
	}
	return errors.New("a connection to the CA stays open")
}

// hasLost tells whether the CA has answered since it was asked that last, and the client has ended without keeping
// the last answer: its nonce is neither in the journal, nor is the certificate published.
func (a *authority) hasLost(v *chaos.Volume) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.last
	a.last = nil
	if last == nil {
		return false
	}
	journal, err := os.ReadFile(filepath.Join(v.Path, "..enrolment"))
	if err != nil {
		_, err = set.Read(v.Path, v.Types)
		return err != nil
	}
	return !bytes.Contains(journal, []byte(base64.StdEncoding.EncodeToString(last)))
}

// unconfirmed are the IDs of the transactions that the CA has no confirmation of.
func (a *authority) unconfirmed() (ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, t := range a.transactions {
		if !t.confirmed {
			ids = append(ids, id)
		}
	}
	return ids
}

// confirmed are the serial numbers of the certificates that were confirmed.
func (a *authority) confirmed() (serials []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.transactions {
		if t.confirmed {
			serials = append(serials, t.serial)
		}
	}
	return serials
}
