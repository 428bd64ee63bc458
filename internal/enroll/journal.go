package enroll

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// journalVersion counts the forms of a journal. One of another version is not continued.
const journalVersion = 1

// journal is a CMP transaction that is not over, as it is kept on the volume: a CA may take days to
// decide, and a process may end at any moment. It holds the new private key.
type journal struct {
	Version int         `json:"version"`
	Key     []byte      `json:"key"` // PKCS#8
	Request Requested   `json:"request"`
	URL     string      `json:"url"`
	Old     string      `json:"old,omitempty"` // of a kur: the certificate that it replaces, as fingerprint gives it
	Pending cmp.Pending `json:"pending"`

	enroller *Enroller
	log      *slog.Logger
	waiting  bool // was logged
}

// takeUp reads the journal on the volume. One that is not to be continued is removed, and its
// transaction named in the log: the CA may have issued a certificate in it.
func (e *Enroller) takeUp() error {
	if e.Config.CMP == nil {
		return nil
	}
	data, err := e.volume.Journal()
	if err != nil {
		return fail(outputStage(err), "reading the journal of an enrolment: %w", err)
	}
	if data == nil {
		return nil
	}
	j := &journal{enroller: e, log: e.Log}
	key, err := j.parse(data)
	if err == nil {
		err = j.stillWanted()
	}
	if err != nil {
		j.abandon(err)
		return e.removeJournal()
	}
	e.Log.Info("continuing an enrolment that was interrupted", "request", j.Pending.Request,
		"transaction_id", j.id(), "since", j.Pending.Since.UTC())
	e.nextKey, e.journal = key, j
	return nil
}

func (j *journal) parse(data []byte) (crypto.Signer, error) {
	if err := json.Unmarshal(data, j); err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	if j.Version != journalVersion {
		return nil, fmt.Errorf("it has version %d, want %d", j.Version, journalVersion)
	}
	key, err := x509.ParsePKCS8PrivateKey(j.Key)
	signer, ok := key.(crypto.Signer)
	if err == nil && !ok {
		err = fmt.Errorf("its key is of type %T", key)
	}
	return signer, err
}

// stillWanted says why the transaction is not to be continued; nil when it is.
func (j *journal) stillWanted() error {
	cfg := j.enroller.Config
	if changed := j.Request.changed(requestedBy(cfg)); changed != "" {
		return fmt.Errorf("the configuration asks for something else now: %s", changed)
	}
	if j.URL != cfg.CMP.URL {
		return fmt.Errorf("it is with %q, and CMP_URL is %q", j.URL, cfg.CMP.URL)
	}
	if age := j.enroller.Now().Sub(j.Pending.Since); cfg.CMP.PollFor > 0 && age > cfg.CMP.PollFor {
		return fmt.Errorf("it began %s ago, which is more than CMP_POLL_FOR, %s", age.Round(time.Second),
			cfg.CMP.PollFor)
	}
	return nil
}

// request is what is pending; empty where nothing is.
func (j *journal) request() string {
	if j == nil {
		return ""
	}
	return j.Pending.Request
}

func (j *journal) id() string { return fmt.Sprintf("%x", j.Pending.TransactionID) }

// abandon names a transaction that is not continued.
func (j *journal) abandon(because error) {
	attributes := []any{"request", j.Pending.Request, "transaction_id", j.id(), "error", because.Error()}
	if leaf := j.Pending.Issued(); leaf != nil {
		attributes = append(attributes, "serial", pki.Serial(leaf))
	}
	j.log.Warn("a CMP transaction is abandoned: the CA may have issued a certificate in it, "+
		"which nobody has confirmed", attributes...)
}

// journalFor is the journal of a request: that of the transaction which is pending, if it is the
// same, or else a new one.
func (o order) journalFor(request string, old *cmp.Signer) (*journal, error) {
	replaces := ""
	if old != nil {
		replaces = fingerprint(old.Certificate)
	}
	key, err := x509.MarshalPKCS8PrivateKey(o.key)
	if err != nil {
		return nil, fail(StageKeyEncoding, "keeping the private key: %w", err)
	}
	if j := o.journal; j != nil {
		j.log = o.Log
		if j.Pending.Request == request && j.Old == replaces && string(j.Key) == string(key) {
			return j, nil
		}
		if j.Pending.Sent {
			j.abandon(fmt.Errorf("another request follows, %s", request))
		}
	}
	o.journal = &journal{Version: journalVersion, Key: key, Request: requestedBy(o.Config), URL: o.Config.CMP.URL,
		Old: replaces, Pending: cmp.Pending{Request: request}, enroller: o.Enroller, log: o.Log}
	return o.journal, nil
}

// Save keeps the journal on the volume.
func (j *journal) Save(*cmp.Pending) error {
	data, err := json.Marshal(j)
	if err != nil {
		panic(err) // nothing in it can fail to be encoded
	}
	if err := j.enroller.volume.SaveJournal(data); err != nil {
		return fail(outputStage(err), "writing the journal of the enrolment: %w", err)
	}
	if j.Pending.Waiting && !j.waiting && len(j.Pending.Chain) == 0 {
		j.waiting = true
		j.log.Info("the CA has not decided yet: polling it for the certificate", "transaction_id", j.id(),
			"since", j.Pending.Since.UTC())
	}
	return nil
}

// resume prepares a try, and tells whether that goes on with something. Of a transaction whose
// answer was lost the request is sent once more, and then a new transaction begins.
func (j *journal) resume() bool {
	if j.Pending.Lost() && j.Pending.Repeated {
		j.restart(errLost)
		return false
	}
	j.Pending.Repeated = j.Pending.Lost()
	return j.Pending.Sent
}

// isForgotten tells of the refusal of what went on that the CA may know nothing of it any more. A
// decision that was waited for is not that.
func (j *journal) isForgotten(err error) bool {
	status, _ := errors.AsType[*cmp.StatusError](err)
	return j.isOver(err) && status != nil && !(j.Pending.Waiting && status.Decided)
}

// isOver tells that an error ends the transaction: the CA has refused, or we have. What anyone on
// the way could have sent ends none in which the CA has something for us.
func (j *journal) isOver(err error) bool {
	held := j.Pending.Waiting || len(j.Pending.Chain) > 0
	var status *cmp.StatusError
	var check *cmp.CheckError
	switch v, _ := judge(err); {
	case v.stage == StageVerification:
		return true
	case errors.As(err, &status):
		return status.Status != cmp.StatusWaiting && (status.Authenticated || !held)
	case errors.As(err, &check):
		return !held
	}
	return false
}

var errLost = errors.New("its answer was lost, twice")

// restart begins a new transaction with the same key.
func (j *journal) restart(because error) {
	j.abandon(because)
	j.Pending = cmp.Pending{Request: j.Pending.Request}
}

// remove forgets a transaction that is over.
func (j *journal) remove() {
	if err := j.enroller.removeJournal(); err != nil {
		j.log.Warn("the journal of an enrolment cannot be removed", "error", err.Error())
	}
}

// endJournal removes the journal of what was published, if it was.
func (e *Enroller) endJournal(err error) {
	if e.journal != nil && (err == nil || Committed(err)) {
		e.journal.remove()
	}
}

// settleJournal is for a certificate that is kept: a transaction that brought it is over, and so is
// one that nobody will continue.
func (e *Enroller) settleJournal(kept *x509.Certificate) {
	j := e.journal
	if j == nil {
		return
	}
	leaf := j.Pending.Issued()
	published := leaf != nil && leaf.Equal(kept)
	if !published && e.Config.Renewal != nil {
		return // a renewal is under way
	}
	if !published {
		j.abandon(errors.New("the volume holds a matching, valid certificate"))
	}
	e.nextKey = nil
	j.remove()
}

// removeJournal ends what takeUp and Save keep: it is published, or will never be.
func (e *Enroller) removeJournal() error {
	if e.Config.CMP == nil {
		return nil
	}
	e.journal = nil
	if err := e.volume.RemoveJournal(); err != nil {
		return fail(outputStage(err), "removing the journal of an enrolment: %w", err)
	}
	return nil
}
