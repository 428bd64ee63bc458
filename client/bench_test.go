package client

import "testing"

// BenchmarkEnroll is one request with its own connection: TCP, the TLS 1.3 handshake with both
// certificates, and the answer.
func BenchmarkEnroll(b *testing.B) {
	m := newMutual(b, answering(b, 200, "answer-200.json"), nil)
	c, request := m.client(b), goldenSecrets(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Enroll(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEnroll_connected is what is left of it when Connect has had the time of making a key.
func BenchmarkEnroll_connected(b *testing.B) {
	m := newMutual(b, answering(b, 200, "answer-200.json"), nil)
	c, request := m.client(b), goldenSecrets(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		c.Connect(b.Context())
		<-c.ahead.dial.done
		b.StartTimer()
		if _, err := c.Enroll(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}
