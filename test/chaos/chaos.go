// Package chaos is what the fault, attack and load tests below it share: how much of each is run, and a record of what
// was measured, for docs/reliability.md.
package chaos

import "os"

// Amount picks how much of a test to run: the least in make test, where a package may take five seconds in all; short
// in CI, where it may take two minutes; the whole with make chaos. CHAOS=short and CHAOS=full say so.
func Amount[T any](least, short, full T) T {
	switch os.Getenv("CHAOS") {
	case "full":
		return full
	case "short":
		return short
	}
	return least
}
