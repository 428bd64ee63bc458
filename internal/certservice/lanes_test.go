package certservice

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLanes_requestsBeyondRoom_waitForThoseOfTheSameClient(t *testing.T) {
	l := lanes{of: map[clientKey]*lane{}}
	ctx := context.Background()
	var leave []func()
	for range perLane {
		done, err := l.enter(ctx, key(1))
		require.NoError(t, err)
		leave = append(leave, done)
	}
	ended, end := context.WithCancel(ctx)
	end()
	_, err := l.enter(ended, key(1))
	assert.ErrorIs(t, err, context.Canceled)
	other, err := l.enter(ctx, key(2))
	require.NoError(t, err, "another client has a lane of its own")

	entered := make(chan func())
	go func() {
		done, err := l.enter(ctx, key(1))
		assert.NoError(t, err)
		entered <- done
	}()
	leave[0]()
	leave[0]() // makes room once
	(<-entered)()
	for _, done := range leave[1:] {
		done()
	}
	other()
	assert.Empty(t, l.of, "nothing is kept of clients that are gone")
}
