package devca_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
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
