package cmp

import (
	"fmt"
	"io"
	"sync/atomic"
)

const (
	// freeAnswer is what an answer takes without being counted, in bytes. Ordinary ones are smaller.
	freeAnswer = 64 << 10
	// answerStep is what is counted at a time.
	answerStep = 64 << 10
	// DefaultAnswerBytes is what the large answers of one server may have in memory at the same time, in bytes.
	DefaultAnswerBytes = 4 << 20
)

// Answers bounds the memory that large answers take at the same time, so that a server cannot fill it by sending to
// many transactions as much as each may have. It may be shared by the clients of one server.
type Answers struct{ left atomic.Int64 }

// NewAnswers returns a bound in bytes. It has to be larger than MaxMessageSize, so that one such answer fits.
func NewAnswers(bytes int64) *Answers {
	a := &Answers{}
	a.left.Store(bytes)
	return a
}

func (a *Answers) take(n int64) bool {
	if a.left.Add(-n) < 0 {
		a.left.Add(n)
		return false
	}
	return true
}

// answers is one transaction's part of the bound. It is given back when the transaction ends, as parts
// of the answers are in use until then.
type answers struct {
	of    *Answers
	taken int64
}

func (a *answers) giveBack() {
	a.of.left.Add(a.taken)
	a.taken = 0
}

// reader counts what is read of one answer.
func (a *answers) reader(body io.Reader) io.Reader {
	return &answerReader{answers: a, body: body, may: freeAnswer}
}

type answerReader struct {
	answers *answers
	body    io.Reader
	may     int64 // be read before more is counted
}

func (r *answerReader) Read(p []byte) (int, error) {
	if r.may <= 0 {
		if !r.answers.of.take(answerStep) {
			return 0, fmt.Errorf(
				"answer is larger than %d bytes, and other large answers of this server are under way", freeAnswer)
		}
		r.answers.taken += answerStep
		r.may += answerStep
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.may)])
	r.may -= int64(n)
	return n, err
}
