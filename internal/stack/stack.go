// Package stack spares a short program the growing of its stacks. A goroutine begins with 2 KiB, and each time that is
// too little, Go doubles it: it looks up every function on the stack, in tables that the kernel has to map first, and
// copies it all. Where a goroutine is known to need more, Grow does that once, while there is nothing to copy.
package stack

// Grow gives the goroutine that calls it a stack of 32 KiB, if it has less: enough for a TLS handshake or reading a
// store. Memory that is not used takes no room.
func Grow() { reserve(false) }

// reserve needs the stack for its frame, which is cleared only where the branch is taken: never.
//
//go:noinline
func reserve(never bool) {
	if never {
		var frame [24 << 10]byte
		use(frame[:])
	}
}

//go:noinline
func use(frame []byte) { clear(frame) }
