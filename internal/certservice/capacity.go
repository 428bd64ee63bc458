package certservice

import (
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Capacity is how many connections are open at the same time, and how many bytes that their clients sent may wait in
// memory. Those without a verified client certificate have a small share of their own, so that nobody without one can
// take what the others need.
type Capacity struct {
	verified, unverified   int   // connections
	verifiedBytes, waiting int64 // bytes of requests under way, and of handshakes and requests without a certificate
}

// LeastConnections is the smallest number that NewCapacity can share out.
const LeastConnections = 16

const (
	// memoryPerConnection is the memory limit's share for each connection. One that is idle takes half of it; the rest
	// is for requests, for garbage, and for the program itself.
	memoryPerConnection = 72 << 10
	// memoryWithoutLimit stands in for a limit where there is none.
	memoryWithoutLimit = 512 << 20
	mostConnections    = 1 << 16
	// filesBeside are the descriptors left for everything but connections of clients, those to the CAs included.
	filesBeside = 320
)

// NewCapacity shares out connections, a number from LeastConnections; 0 derives it from the memory that this process
// may take and the files it may open.
func NewCapacity(connections int) Capacity {
	memory := memoryLimit()
	if connections == 0 {
		connections = int(min(mostConnections, memory/memoryPerConnection))
		if files := openFileLimit() - filesBeside; connections > files {
			connections = files
		}
		connections = max(connections, LeastConnections)
	}
	unverified := connections / 3
	return Capacity{
		verified: connections - unverified, unverified: unverified,
		// What was sent takes up to three times its size as headers, ten times as certificates of a handshake.
		verifiedBytes: max(memory/16, 2*hardHeaderBytes), waiting: max(memory/96, 2*handshakeBytes),
	}
}

// Connections is how many are open at the same time.
func (c Capacity) Connections() int { return c.verified + c.unverified }

// memoryLimit is the smallest of GOMEMLIMIT and the limits of the cgroups that this process is in, in bytes.
func memoryLimit() int64 {
	limit := int64(math.MaxInt64)
	memberships, _ := os.ReadFile("/proc/self/cgroup") // not there but on Linux
	for _, file := range cgroupLimits(string(memberships)) {
		limit = min(limit, numberIn(file))
	}
	// Where nothing is limited, version 1 has a number close to the largest.
	if limit = min(limit, debug.SetMemoryLimit(-1)); limit > 1<<50 {
		return memoryWithoutLimit
	}
	return limit
}

// cgroupLimits returns the files that may hold a limit for a process with the memberships, which are the text of
// /proc/PID/cgroup: those of its cgroup for memory, of version 2 or 1, and of all above it. In a container, which
// mostly sees its own as the root, some do not exist.
func cgroupLimits(memberships string) []string {
	var files []string
	for line := range strings.Lines(memberships) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		root, name := "/sys/fs/cgroup", "memory.max"
		switch {
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case fields[1] != "":
			continue
		}
		for dir := path.Join("/", fields[2]); ; dir = path.Dir(dir) {
			files = append(files, path.Join(root, dir, name))
			if dir == "/" {
				break
			}
		}
	}
	return files
}

// numberIn reads a number from one of the kernel's files. No file and no number, such as "max", are no limit.
func numberIn(file string) int64 {
	text, err := os.ReadFile(file)
	n, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || parseErr != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}

// openFileLimit is how many files this process may have open.
func openFileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}
