// Package ejbca is a CMP server for tests that behaves like EJBCA Community 8.2: what it signs and what it
// protects with a MAC, the words with which it refuses, the names that it puts into certificates. The test of
// this package holds it to the messages in test/testdata/ejbca, which were recorded from the real one.
//
// It is not a CA to rely on: it issues to anyone who knows the secret, in memory, with a key made for the test.
package ejbca

import (
	stdcmp "cmp"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// path is where EJBCA has its aliases.
const path = "/ejbca/publicweb/cmp/"

// Authentication modules of an alias, in both orders that are in use. EJBCA reports what the last one says.
const (
	CertificateFirst = "EndEntityCertificate;HMAC"
	SecretFirst      = "HMAC;EndEntityCertificate"
)

// Certificate profiles. ENDUSER and SERVER are EJBCA's own, Custom is what ONAP's installation imports. With KeyID the
// profile is named by the request's senderKID.
const (
	ENDUSER = "ENDUSER" // no serverAuth
	SERVER  = "SERVER"  // no clientAuth
	Custom  = "CUSTOM_ENDUSER"
	KeyID   = "KeyId"
)

// EMPTY is the end entity profile that allows every subject, and lets only super administrators update.
const EMPTY = "EMPTY"

// Config is an EJBCA with one alias. The zero value is one in RA mode as deploy/compose/ejbca-configure.sh makes it,
// but without a secret.
type Config struct {
	Alias   string // "": cmpRA
	Subject string // of the CA; "": CN=Test CA,O=Example
	SubCA   bool   // the CA is under a root of its own

	Secret string // RA mode: of all
	// client mode: of each end entity, by user name, which is its CN; good for one certificate
	Passwords map[string]string

	Modules            string   // "": CertificateFirst
	PBE                bool     // responseprotection is pbe, otherwise signature
	CertificateProfile string   // "": SERVER
	EndEntityProfile   string   // "": one that allows every subject
	RequiredFields     []string // names of subject fields as EJBCA has them: STATEORPROVINCE
	UpdatesFor         string   // organization of the role that may update; "": Example
	NoRole             bool     // there is no such role
	// the certificate profile lets requests override extensions: an update has its own names
	AllowOverride     bool
	Ed25519NotAllowed bool   // by the certificate profile
	CommonNamePostfix string // that the end entity profile's naming scheme adds
	Validity          time.Duration
	Now               func() time.Time
	KnownIssuers      []*x509.Certificate // more CAs whose certificates EJBCA has in its database
	Registered        []Entity            // end entities that are there already
	Revoked           [][]byte            // certificates (DER) that are revoked
}

// Entity is an end entity: in RA mode its user name is the subject's common name, whatever the rest is.
type Entity struct {
	Subject []byte // DER Name, in EJBCA's order
	Names   []byte // value of subjectAltName; nil: none
}

// Server is a running EJBCA.
type Server struct {
	config        Config
	root, issuing *x509.Certificate
	key           *ecdsa.PrivateKey

	mu       sync.Mutex
	entities map[string]Entity // by user name
	used     map[string]bool   // one-time passwords, by user name
	opened   map[string]string // secrets of open transactions, by transactionID
	failures int
	offline  bool
	issued   []*x509.Certificate
	received []*cmp.PKIMessage
}

// New makes a CA and its alias.
func New(config Config) (*Server, error) {
	config.Alias = stdcmp.Or(config.Alias, "cmpRA")
	config.Subject = stdcmp.Or(config.Subject, "CN=Test CA,O=Example")
	config.Modules = stdcmp.Or(config.Modules, CertificateFirst)
	config.CertificateProfile = stdcmp.Or(config.CertificateProfile, SERVER)
	config.EndEntityProfile = stdcmp.Or(config.EndEntityProfile, "certfetcher")
	config.UpdatesFor = stdcmp.Or(config.UpdatesFor, "Example")
	config.Validity = stdcmp.Or(config.Validity, 2*365*24*time.Hour)
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Server{config: config, entities: map[string]Entity{}, used: map[string]bool{},
		opened: map[string]string{}}
	for _, entity := range config.Registered {
		s.entities[commonName(entity.Subject)] = entity
	}
	return s, s.makeCA()
}

// Root returns the certificate of the root, which is the issuing CA's own unless that is a sub-CA.
func (s *Server) Root() *x509.Certificate { return s.root }

// Issuing returns the certificate of the issuing CA, which signs the answers too.
func (s *Server) Issuing() *x509.Certificate { return s.issuing }

// Issued returns the certificates that were issued so far.
func (s *Server) Issued() []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// Requests returns the messages of a kind that came so far.
func (s *Server) Requests(kind cmp.BodyType) []*cmp.PKIMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*cmp.PKIMessage
	for _, message := range s.received {
		if message.Body.Type == kind {
			found = append(found, message)
		}
	}
	return found
}

// FailTransactions lets the next requests for certificates fail as those of one subject at the same time do: HTTP
// status 500 with a page, and nothing issued.
func (s *Server) FailTransactions(count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = count
}

// TakeOffline has the CA's key unusable, as after a restart when its password is not kept.
func (s *Server) TakeOffline() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offline = true
}

// ServeHTTP answers CMP over HTTP at the path of the alias.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	alias := strings.TrimPrefix(r.URL.Path, path)
	if alias != s.config.Alias {
		page(w, http.StatusNotFound, "CMP alias '"+alias+"' does not exist")
		return
	}
	der, err := io.ReadAll(io.LimitReader(r.Body, cmp.MaxMessageSize))
	if err != nil {
		return
	}
	request, err := cmp.ParsePKIMessage(der)
	if err != nil {
		page(w, http.StatusBadRequest, "Bad Request")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock() // one at a time: what happens at the same time is told to happen
	s.received = append(s.received, request)
	if _, isRequest := answers[request.Body.Type]; isRequest && s.failures > 0 {
		s.failures--
		page(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	answer, err := s.answer(request)
	if err == nil {
		der, err = answer.Marshal()
	}
	if err != nil {
		page(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("Content-Type", cmp.MediaType)
	_, _ = w.Write(der) // an error is the client's having gone
}

// page answers as the application server does.
func page(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/html;charset=UTF-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html><head><title>Error</title></head><body>%s</body></html>", text)
}
