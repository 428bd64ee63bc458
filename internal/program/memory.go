package program

import (
	"os"
	"runtime/debug"
)

// ServerGC lets the garbage collector of a server wait until the heap is four times what is in use, unless
// GOGC says otherwise. What a request leaves is little and all of it garbage: collecting it as often as Go does
// by default took an eighth of the processor's time under load. GOMEMLIMIT still bounds it.
func ServerGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300)
	}
}
