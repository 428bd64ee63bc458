package network

import (
	"math/rand/v2"

	"github.com/Shopify/toxiproxy/v2/toxics"
)

// Fault is what one connection suffers.
type Fault struct {
	// Kind names it.
	Kind string

	toxics []toxic
	hole   bool // accepted, and never read
	reset  bool // ended by RST in place of FIN
	half   bool // the end of one direction is not that of the other
	brief  bool // it ends when something came back, and then nothing for a while
}

// toxic is one of Toxiproxy, or of this package, in its JSON.
type toxic struct {
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`
	Attributes map[string]any `json:"attributes"`
}

// None passes everything on.
func None() Fault { return Fault{Kind: "none"} }

// Hole accepts the connection and never answers.
func Hole() Fault { return Fault{Kind: "black hole", hole: true} }

// stalled loses everything in a direction after so many bytes.
func stalled(direction string, after int) Fault {
	at := map[string]any{"bytes": after, "lose": true}
	return Fault{Kind: "stalled", toxics: []toxic{{"spoil", direction, at}}}
}

// Breaks returns one that breaks the connection, at a random one of its first bytes. size is about how many bytes the
// larger direction has in all.
func Breaks(r *rand.Rand, size int) Fault {
	direction, after := []string{"upstream", "downstream"}[r.IntN(2)], r.IntN(size)
	one := func(kind string) []toxic {
		return []toxic{{kind, direction, map[string]any{"bytes": after, "bit": r.IntN(8)}}}
	}
	return []Fault{
		{Kind: "reset", toxics: one("limit_data"), reset: true},
		{Kind: "closed", toxics: one("limit_data")},
		{Kind: "half-closed", toxics: one("limit_data"), half: true},
		{Kind: "flipped bit", toxics: one("spoil")}, stalled(direction, after), Hole()}[r.IntN(6)]
}

// Slows returns one that slows the connection, and breaks nothing.
func Slows(r *rand.Rand) Fault {
	kind := []string{"latency", "bandwidth", "slicer"}[r.IntN(3)]
	attributes := map[string]any{"latency": 5 + r.IntN(60), "jitter": 1 + r.IntN(5), "rate": 8 + r.IntN(30), // kB/s
		"average_size": 1, "size_variation": 0, "delay": 5}
	return Fault{Kind: kind, toxics: []toxic{{kind, "upstream", attributes}, {kind, "downstream", attributes}}}
}

// Some breaks the share of connections, slows a fifth of them, and passes the others on.
func Some(r *rand.Rand, share float64, size int) Fault {
	switch p := r.Float64(); {
	case p < share:
		return Breaks(r, size)
	case p < share+0.2:
		return Slows(r)
	}
	return None()
}

// Brief ends the connection as soon as an answer is over, so that each exchange meets a fault of its own.
func (f Fault) Brief() Fault {
	f.brief = true
	return f
}

func init() {
	toxics.Register("spoil", new(spoil))
}

// spoil changes one bit of a direction, or loses everything from there on.
type spoil struct {
	Bytes int  `json:"bytes"` // how many are passed before
	Bit   int  `json:"bit"`   // of the next one
	Lose  bool `json:"lose"`
}

// Pipe passes the rest on.
func (s *spoil) Pipe(stub *toxics.ToxicStub) {
	left := s.Bytes
	for chunk := range stub.Input {
		size := len(chunk.Data)
		if s.Lose {
			chunk.Data = chunk.Data[:min(size, max(0, left))]
		} else if left >= 0 && left < size {
			chunk.Data[left] ^= 1 << s.Bit
		}
		left -= size
		if len(chunk.Data) > 0 {
			stub.Output <- chunk
		}
	}
	stub.Close()
}
