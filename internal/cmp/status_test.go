package cmp

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func withSAN(value []byte) []pkix.Extension { return []pkix.Extension{{Id: oidSAN, Value: value}} }

func TestPKIFailureInfo_bits(t *testing.T) {
	info := NewFailureInfo(FailDuplicateCertReq, FailBadAlg, FailBadPOP)
	assert.True(t, info.Has(FailBadPOP))
	assert.False(t, info.Has(FailBadTime))
	assert.Equal(t, []string{"badAlg", "badPOP", "duplicateCertReq"}, info.Names())
	assert.Empty(t, NewFailureInfo().Names())
	assert.Equal(t, "failure bit 27", FailureBit(27).String())
	for bit := FailBadAlg; bit <= FailDuplicateCertReq; bit++ {
		assert.Equal(t, []string{bit.String()}, NewFailureInfo(bit).Names())
	}
}

func TestPKIFreeText_String_isFitForALog(t *testing.T) {
	assert.Equal(t, "one; two", PKIFreeText{"one", "two"}.String())
	assert.Equal(t, "a b", PKIFreeText{"a\nb\x00\xff"}.String())
	assert.Len(t, PKIFreeText{strings.Repeat("x", 5000)}.String(), maxShownText+len("…"))
	assert.Empty(t, PKIFreeText(nil).String())
}

func TestStatusError_text(t *testing.T) {
	for want, err := range map[string]*StatusError{
		`CA refused: rejection`: {Status: StatusRejection, Authenticated: true},
		`CA refused (in an answer that is not authenticated): rejection, badPOP: "text"`: {Status: StatusRejection, FailInfo: NewFailureInfo(FailBadPOP), Text: "text"},
		`CA has not decided in time: waiting`:                                            {Status: StatusWaiting, Authenticated: true},
		`CA refused: status 9`:                                                           {Status: 9, Authenticated: true},
	} {
		assert.EqualError(t, err, want)
	}
}

func TestCheckError_text(t *testing.T) {
	assert.EqualError(t, &CheckError{Check: "pvno", Got: "1", Want: "2 or 3"}, "checking pvno of the CMP answer: has 1, want 2 or 3")
}

// What a peer says and what its names are can take a megabyte, quoted more.
func TestCheckError_text_isBounded(t *testing.T) {
	long := strings.Repeat("\x01", 1<<20)

	err := &CheckError{Check: "sender", Got: fmt.Sprintf("%q", long), Want: fmt.Sprintf("%q", long)}

	assert.Less(t, len(err.Error()), 2*maxShownText+100)
}

func TestAlternativeNames_everyKind(t *testing.T) {
	names, err := alternativeNames(withSAN([]byte{0x30, 24, 0x82, 1, 'X', 0x81, 3, 'A', '@', 'B', 0x86, 1, 'u', 0x87, 4, 10, 0, 0, 1, 0x88, 1, 5, 0xa4, 2, 0x30, 0}))
	assert.NoError(t, err)
	assert.Equal(t, []string{`DNS "x"`, "IP 10.0.0.1", `URI "u"`, `email "A@b"`, "name of kind 4 3000", "name of kind 8 05"}, names)

	for _, malformed := range [][]byte{nil, {0x30, 1, 0x82}, {0x30, 0, 0}, {5, 0}} {
		_, err := alternativeNames(withSAN(malformed))
		assert.EqualError(t, err, "names that do not parse")
	}
}

func TestBodyType_String(t *testing.T) {
	assert.Equal(t, "ir", BodyIR.String())
	assert.Equal(t, "kup", BodyKUP.String())
	assert.Equal(t, "pkiconf", BodyPKIConf.String())
	assert.Equal(t, "pollRep", BodyPollRep.String())
	assert.Equal(t, "body 27", BodyType(27).String())
}
