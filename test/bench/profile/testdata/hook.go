package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"
)

// The program is profiled for as long as a connection to PROFILE_SOCKET is open for writing. The answer is a line of
// JSON, which is the type Usage of package profile, and then the profile.
func init() {
	path := os.Getenv("PROFILE_SOCKET")
	if path == "" {
		return
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				panic(err)
			}
			profile(conn)
		}
	}()
}

func profile(conn net.Conn) {
	defer conn.Close()
	file, err := os.CreateTemp("", "cpu-profile-")
	if err != nil {
		panic(err)
	}
	defer os.Remove(file.Name())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := usedCPU()
	if err := pprof.StartCPUProfile(file); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, conn)
	pprof.StopCPUProfile()
	cpu = usedCPU() - cpu
	runtime.ReadMemStats(&after)
	_ = json.NewEncoder(conn).Encode(map[string]any{"CPU": cpu, "Allocations": after.Mallocs - before.Mallocs,
		"Bytes": after.TotalAlloc - before.TotalAlloc, "Collections": after.NumGC - before.NumGC})
	_, _ = file.Seek(0, io.SeekStart)
	_, _ = io.Copy(conn, file)
}

// usedCPU is the processor time of the process so far.
func usedCPU() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
