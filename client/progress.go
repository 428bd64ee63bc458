package client

import (
	"context"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// stage is how far a try has come, which a time-out alone does not tell.
type stage int32

const (
	stageConnect stage = iota // name and TCP
	stageTLS
	stageRequest // sent or being sent, nothing has come back
	stageAnswer  // the first byte of the answer is there
)

// progress is what the layers below report of one try.
type progress struct {
	reached   atomic.Int32
	ahead     atomic.Pointer[progress] // of the connection under way that this try waits for
	madeAhead atomic.Bool              // the connection was set up before the try began

	asked   atomic.Bool                  // the server asked for the client certificate
	tunnel  atomic.Pointer[net.Conn]     // to the proxy, through which the transport itself makes TLS
	unasked atomic.Pointer[unaskedError] // why the tunnel was closed
}

func (p *progress) stage() stage {
	if reached := stage(p.reached.Load()); reached != stageConnect {
		return reached
	}
	if a := p.ahead.Load(); a != nil {
		return a.stage()
	}
	return stageConnect
}

func (p *progress) reach(s stage) { p.reached.Store(int32(s)) }

func (c *Client) trace(p *progress) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		TLSHandshakeStart: func() {
			p.reach(stageTLS)
			p.asked.Store(false) // a proxy at the same address may have asked, on the way
		},
		TLSHandshakeDone:     c.tunnelled(p),
		GotConn:              func(httptrace.GotConnInfo) { p.reach(stageRequest) },
		GotFirstResponseByte: func() { p.reach(stageAnswer) },
	}
}

type progressKey struct{}

func withProgress(ctx context.Context, p *progress) context.Context {
	return context.WithValue(ctx, progressKey{}, p)
}

// progressOf returns a progress that nobody reads when ctx has none.
func progressOf(ctx context.Context) *progress {
	if p, ok := ctx.Value(progressKey{}).(*progress); ok {
		return p
	}
	return &progress{}
}
