package program

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

// What Prometheus' own libraries tell of every process, under the same names: what alerts and
// dashboards for Go programs look at, and no more. A fleet has as many of these as it has pods.
var (
	goGC = define("go_gc_duration_seconds", KindSummary,
		"Time for which the garbage collector stopped the program.", nil)
	goMemoryLimit = DefineGauge("go_gc_gomemlimit_bytes",
		"Limit of memory of the Go runtime (GOMEMLIMIT).")
	goGoroutines = DefineGauge("go_goroutines",
		"Goroutines that exist now.")
	goInfo = DefineGauge("go_info",
		"Always 1; the label is the version of Go.", "version")
	goAlloc = DefineGauge("go_memstats_alloc_bytes",
		"Bytes of heap objects that are in use.")
	goAllocTotal = DefineCounter("go_memstats_alloc_bytes_total",
		"Bytes of heap objects that were ever allocated.")
	goHeapInUse = DefineGauge("go_memstats_heap_inuse_bytes",
		"Bytes in spans of the heap that are in use.")
	goNextGC = DefineGauge("go_memstats_next_gc_bytes",
		"Size of the heap at which garbage is collected next.")
	goSys = DefineGauge("go_memstats_sys_bytes",
		"Bytes that the Go runtime has from the system.")
	goThreads = DefineGauge("go_threads",
		"Threads of the system that were made.")
	processCPU = DefineCounter("process_cpu_seconds_total",
		"Time that the process used of processors, in user and system mode.")
	processMaxFDs = DefineGauge("process_max_fds",
		"How many files the process may have open.")
	processOpenFDs = DefineGauge("process_open_fds",
		"Files that the process has open, connections among them.")
	processResident = DefineGauge("process_resident_memory_bytes",
		"Memory of the process that is resident.")
	processStart = DefineGauge("process_start_time_seconds",
		"When the process began, in Unix time.")
	processVirtual = DefineGauge("process_virtual_memory_bytes",
		"Memory of the process that is mapped.")
)

var started = time.Now()

// writeProcess writes the series of the process. What the system does not tell is left out.
func writeProcess(w *bytes.Buffer) {
	write := func(s *Series, v float64, labels ...any) {
		s.writeHead(w)
		writeSample(w, s.Name, s.labelText(labels), v)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	goGC.writeHead(w)
	writeSample(w, goGC.Name+"_sum", "", float64(memory.PauseTotalNs)/1e9)
	writeSample(w, goGC.Name+"_count", "", float64(memory.NumGC))
	write(goMemoryLimit, float64(debug.SetMemoryLimit(-1)))
	write(goGoroutines, float64(runtime.NumGoroutine()))
	write(goInfo, 1, runtime.Version())
	write(goAlloc, float64(memory.Alloc))
	write(goAllocTotal, float64(memory.TotalAlloc))
	write(goHeapInUse, float64(memory.HeapInuse))
	write(goNextGC, float64(memory.NextGC))
	write(goSys, float64(memory.Sys))
	threads, _ := runtime.ThreadCreateProfile(nil)
	write(goThreads, float64(threads))

	stat := readStat()
	if stat != nil {
		write(processCPU, (stat[statUser]+stat[statSystem])/ticks)
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		write(processMaxFDs, float64(limit.Cur))
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		write(processOpenFDs, float64(len(open)-1)) // without the directory itself
	}
	if stat != nil {
		write(processResident, stat[statResident]*float64(os.Getpagesize()))
	}
	write(processStart, float64(started.UnixMilli())/1000)
	if stat != nil {
		write(processVirtual, stat[statVirtual])
	}
}

// Fields of /proc/self/stat, counted from 0 behind the name, and the ticks in a second (proc(5)).
const (
	statUser     = 11
	statSystem   = 12
	statVirtual  = 20
	statResident = 21 // pages
	ticks        = 100
)

// readStat reads /proc/self/stat, which is open to the process also where the rest is hidden from
// it (internal/startup); nil where there is none.
func readStat() []float64 {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil
	}
	// The name is in parentheses, and may hold some.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= statResident {
		return nil
	}
	numbers := make([]float64, len(fields))
	for i, field := range fields {
		numbers[i], _ = strconv.ParseFloat(string(field), 64) // the first is a letter
	}
	return numbers
}
