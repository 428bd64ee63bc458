package profile

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// Kind is what processor time is used for.
type Kind string

// The kinds, in the order of the printed table.
const (
	Cryptography Kind = "cryptography"
	Runtime      Kind = "Go runtime"
	Kernel       Kind = "kernel"
	ASN1         Kind = "ASN.1, PEM and X.509"
	HTTP         Kind = "HTTP and JSON"
	Logging      Kind = "log"
	Own          Kind = "own code"
	Rest         Kind = "rest"
)

// Kinds are all of them.
var Kinds = []Kind{Cryptography, Runtime, Kernel, ASN1, HTTP, Logging, Own, Rest}

// Shares reads what `go tool pprof -traces` prints, and returns the part of the processor time that each kind has: from
// 0 to 1, in all 1.
//
// A sample counts for the package of its innermost function that says what is done:
//
//   - A system call is the kernel's, whoever makes it, and so are package syscall and internal/poll around it.
//   - What else is in package runtime is the Go runtime's, also below cryptography: allocation, collection,
//     scheduling, maps. But copying, comparing and clearing memory count for who has it done: for the runtime below an
//     allocation, for cryptography below a hash.
//   - Packages below crypto are cryptography, with records and handshakes of TLS: but crypto/x509 is ASN.1, as it reads
//     certificates and builds chains. The signatures that it checks are verified in other packages.
//   - encoding/asn1, cryptobyte, encoding/pem and encoding/base64 are ASN.1 and PEM; net, net/http and what serves it,
//     encoding/json are HTTP and JSON; log/slog is the log; packages of this module are our own code.
//   - All others (strings, fmt, time, sync, math/big, reflect and so on) say nothing: they count for who calls them.
//     What is called by none that says something is the rest.
func Shares(traces io.Reader) (map[Kind]float64, error) {
	samples, err := readTraces(traces)
	if err != nil {
		return nil, err
	}
	shares, total := map[Kind]float64{}, time.Duration(0)
	for _, s := range samples {
		shares[kindOf(s.stack)] += float64(s.took)
		total += s.took
	}
	if total == 0 {
		return nil, fmt.Errorf("the profile has no samples")
	}
	for kind := range shares {
		shares[kind] /= float64(total)
	}
	return shares, nil
}

// sample is a stack, innermost function first, that was seen for some time.
type sample struct {
	took  time.Duration
	stack []string
}

// first is the first line of a sample: how long, and the innermost function.
var first = regexp.MustCompile(`^\s+([\d.]+(?:ns|us|ms|s|mins|hrs))\s{3}(.+)$`)

// readTraces reads samples, each of which begins below a line of dashes.
func readTraces(traces io.Reader) (samples []sample, err error) {
	begins := false
	for lines := bufio.NewScanner(traces); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "-----") {
			begins = true
			continue
		}
		if begins {
			begins = false
			found := first.FindStringSubmatch(line)
			if found == nil {
				return nil, fmt.Errorf("the line %q of pprof's is not the begin of a sample", line)
			}
			took, err := time.ParseDuration(strings.NewReplacer("mins", "m", "hrs", "h").Replace(found[1]))
			if err != nil {
				return nil, fmt.Errorf("the line %q of pprof's: %w", line, err)
			}
			samples = append(samples, sample{took: took})
			line = found[2]
		}
		if n := len(samples); n > 0 {
			function := strings.TrimSuffix(strings.TrimSpace(line), " (inline)")
			samples[n-1].stack = append(samples[n-1].stack, function)
		}
	}
	return samples, nil
}

// moved are functions of the runtime that work for their caller.
var moved = regexp.MustCompile(`^runtime\.(mem(move|equal|clr)|cmpstring|duff|intstring|slicebytetostring|` +
	`stringtoslicebyte|concatstring|decoderune|asyncPreempt)|^internal/(bytealg|stringslite)\.`)

// kernel are the functions that call it; the runtime has some of its own.
var kernel = regexp.MustCompile(`^(internal/runtime/syscall(/linux)?|internal/poll|syscall|` +
	`internal/syscall/unix)\.|^runtime\.(futex|epollwait|epollctl|netpoll|usleep|osyield|madvise|mmap|munmap|write1|` +
	`tgkill|vgetrandom1|read)$`)

var readsDER = map[string]bool{"encoding/asn1": true, "encoding/pem": true, "encoding/base64": true}

// kindOf is what a sample counts for.
func kindOf(stack []string) Kind {
	for _, function := range stack {
		switch pkg := packageOf(function); {
		case moved.MatchString(function):
		case kernel.MatchString(function):
			return Kernel
		case pkg == "runtime", within(pkg, "internal/runtime"), pkg == "gcWriteBarrier":
			return Runtime
		case within(pkg, "crypto/x509"), within(pkg, "golang.org/x/crypto/cryptobyte"), readsDER[pkg]:
			return ASN1
		case within(pkg, "crypto"), within(pkg, "golang.org/x/crypto"):
			return Cryptography
		case within(pkg, "net"), pkg == "mime", pkg == "encoding/json", within(pkg, "golang.org/x/net"):
			return HTTP
		case within(pkg, "log"):
			return Logging
		case within(pkg, "github.com/certfetcher/certfetcher"), pkg == "main":
			return Own
		}
	}
	return Rest
}

// packageOf is the package of a function as pprof names it, such as crypto/tls.(*Conn).Write.
func packageOf(function string) string {
	function = strings.TrimPrefix(function, "vendor/")
	begin := strings.LastIndex(bracketless(function), "/") + 1
	name, _, _ := strings.Cut(function[begin:], ".")
	return function[:begin] + name
}

// bracketless is the function without type arguments, and what follows them, in which there may be slashes.
func bracketless(function string) string {
	function, _, _ = strings.Cut(function, "[")
	function, _, _ = strings.Cut(function, "(")
	return function
}

func within(pkg, parent string) bool { return pkg == parent || strings.HasPrefix(pkg, parent+"/") }
