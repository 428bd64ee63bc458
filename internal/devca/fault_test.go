package devca_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestParseFaults(t *testing.T) {
	golden.Play(t, "faults.txt", func(t *testing.T, words, _ string) string {
		faults, err := devca.ParseFaults(words)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%+v", faults)
	})
}

func TestFault_slow(t *testing.T) {
	ca := newCA(devca.Config{Faults: devca.Faults{Slow: 2 * time.Second}})
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		require.Equal(t, http.StatusBadRequest, post(ca, "/", cmp.MediaType, nil).Code)
		assert.Equal(t, 2*time.Second, time.Since(begun))
	})
}

func TestFault_drop(t *testing.T) {
	ca, url := start(t, devca.Config{Faults: devca.Faults{Drop: true}})
	der := fixture.Must(protect(t, ir(t)).Marshal())
	_, err := http.Post(url, cmp.MediaType, bytes.NewReader(der))
	assert.ErrorIs(t, err, io.EOF)
	assert.Zero(t, ca.Stats().Requests)
}

func TestFault_drop_ofOneKind_losesTheAnswerOnly(t *testing.T) {
	ca, url := start(t, devca.Config{Faults: devca.Faults{DropBodies: []cmp.BodyType{cmp.BodyIR}}})
	der := fixture.Must(protect(t, ir(t)).Marshal())
	_, err := http.Post(url, cmp.MediaType, bytes.NewReader(der))
	assert.ErrorIs(t, err, io.EOF)
	assert.EqualValues(t, 1, ca.Stats().Issued)
}
