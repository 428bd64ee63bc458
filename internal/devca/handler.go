package devca

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// ejbcaPath is where EJBCA has its CMP aliases. Every alias is this CA.
const ejbcaPath = "/ejbca/publicweb/cmp/"

// wellKnown is where RFC 9811, 3.4 has CMP, and below it what RFC 9483, 6.1 adds.
const wellKnown = "/.well-known/cmp"

// operations are the path segments that RFC 9483, 6.1 has for kinds of messages. Any of them takes every kind.
var operations = []string{"initialization", "certification", "keyupdate", "pkcs10", "revocation", "getcacerts",
	"getrootupdate", "getcertreqtemplate", "getcrls", "nested"}

// ServeHTTP answers CMP over HTTP (RFC 9811, 3) at /, /pkix/ (as OpenSSL's and the ONAP server's users write
// it), /.well-known/cmp with the operations and names (p/{name}) below it, and /ejbca/publicweb/cmp/{alias}. A
// message that parses is answered with status 200 whatever the answer says, one that does not with 400 and an error
// message.
func (c *CA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !isServed(r.URL.Path):
		http.Error(w, "CMP is answered at /, /pkix/, /.well-known/cmp[/p/{name}][/{operation}] and "+ejbcaPath+
			"{alias}",
			http.StatusNotFound)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "CMP messages are sent with POST", http.StatusMethodNotAllowed)
		return
	case !isCMP(r.Header.Get("Content-Type")):
		http.Error(w, "CMP messages have the content type "+cmp.MediaType, http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, cmp.MaxMessageSize))
	if err != nil {
		status := http.StatusBadRequest
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "the message could not be read: "+err.Error(), status)
		return
	}
	c.serve(w, r, body)
}

func (c *CA) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	faults := *c.faults.Load()
	if faults.Slow > 0 {
		select {
		case <-time.After(faults.Slow):
		case <-r.Context().Done():
			return
		}
	}
	if faults.Drop {
		panic(http.ErrAbortHandler) // the way to close the connection that net/http offers
	}
	status := http.StatusOK
	request, err := cmp.ParsePKIMessage(body)
	var answer *cmp.PKIMessage
	if err != nil {
		status = http.StatusBadRequest
		answer, err = c.answerUnreadable(err)
	} else {
		answer, err = c.answer(request, faults)
	}
	var der []byte
	if err == nil {
		der, err = answer.Marshal()
	}
	if err != nil {
		c.config.Log.Error("message could not be answered", "error", err.Error())
		http.Error(w, "the message could not be answered", http.StatusInternalServerError)
		return
	}
	if request != nil && slices.Contains(faults.DropBodies, request.Body.Type) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", cmp.MediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(der)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// It fails when the client has gone.
	_, _ = w.Write(der)
}

// answerUnreadable answers what is not a PKIMessage, in a transaction of its own (RFC 9483, 3.6.4).
func (c *CA) answerUnreadable(reason error) (*cmp.PKIMessage, error) {
	c.counters.errors.Add(1)
	c.config.Log.Info("message could not be read", "error", reason.Error())
	now := c.config.Now()
	request := &cmp.PKIMessage{Header: cmp.PKIHeader{PVNO: cmp.PVNO2,
		Sender: cmp.DirectoryName(nil), TransactionID: cmp.NewNonce()}}
	e := &exchange{ca: c, request: request, now: now,
		header: request.Header.Answer(cmp.DirectoryName(c.issuing.RawSubject), now)}
	info := cmp.Rejection(reason.Error(), cmp.FailBadDataFormat)
	return e.protect(cmp.PKIBody{Type: cmp.BodyError, Content: &cmp.ErrorMsgContent{StatusInfo: info}})
}

func isServed(path string) bool {
	switch path {
	case "/", "/pkix", "/pkix/", wellKnown, wellKnown + "/":
		return true
	}
	if below, found := strings.CutPrefix(path, wellKnown+"/"); found {
		return isWellKnown(strings.Split(strings.TrimSuffix(below, "/"), "/"))
	}
	alias, found := strings.CutPrefix(path, ejbcaPath)
	return found && alias != "" && !strings.Contains(alias, "/")
}

// isWellKnown: operation, p/{name} or p/{name}/operation.
func isWellKnown(segments []string) bool {
	if segments[0] == "p" && len(segments) > 1 && segments[1] != "" {
		if segments = segments[2:]; len(segments) == 0 {
			return true
		}
	}
	return len(segments) == 1 && slices.Contains(operations, segments[0])
}

func isCMP(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return mediaType == cmp.MediaType && (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter))
}
