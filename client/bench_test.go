package client

import "testing"

// BenchmarkEnroll is one request with its own connection: TCP, the TLS 1.3 handshake with both
// certificates, and the answer.
func BenchmarkEnroll(b *testing.B) { benchmarkEnroll(b, false) }

// BenchmarkEnroll_connected is what is left of it when Connect has had the time of making a key.
func BenchmarkEnroll_connected(b *testing.B) { benchmarkEnroll(b, true) }

func benchmarkEnroll(b *testing.B, connected bool) {
	c, request := newMutual(b).client(), goldenSecrets()
	b.ReportAllocs()
	for b.Loop() {
		if connected {
			b.StopTimer()
			c.Connect(b.Context())
			<-c.ahead.dial.done
			b.StartTimer()
		}
		if _, err := c.Enroll(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}
