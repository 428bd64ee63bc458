package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// moments of a run, as others see them, in their order.
var moments = []string{
	"the process is started", "its ClientHello is at the service", "its identity is verified by the service",
	"its request is at the service", "the service has answered", "the files are there", "the process has ended",
}

// timeline is when each moment was seen first.
type timeline struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

func (t *timeline) mark(moment int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[moments[moment]].IsZero() {
		t.seen[moments[moment]] = time.Now()
	}
}

// timeline looks at runs of certfetcher from outside: from the service, by inotify and as their parent.
func (b *bench) timeline() {
	t := &timeline{}
	s := fixture.Must(service.Start(b.newDir("identity"), service.Options{
		TLS: func(_ *service.Service, config *tls.Config) {
			config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { t.mark(1); return nil, nil }
			config.VerifyConnection = func(tls.ConnectionState) error { t.mark(2); return nil }
		},
		Wrap: func(_ *service.Service, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				t.mark(3)
				next.ServeHTTP(w, r)
				t.mark(4)
			})
		},
	}))
	b.atEnd(s.Stop)
	since := map[string][]time.Duration{}
	var idle seen
	for round := range either(b, 10, 50) + 1 {
		volume := b.newDir(fmt.Sprint("volume", round))
		command := jobs[0].fetch(s, volume)
		t.seen = map[string]time.Time{}
		published := awaitFile(volume, "keystore.pem", func() { t.mark(5) })
		t.mark(0)
		run(command)
		t.mark(6)
		published()
		nothing, _ := run(exec.Command(program, "--version"))
		if round == 0 {
			continue
		}
		idle = append(idle, nothing)
		for _, moment := range moments {
			if t.seen[moment].IsZero() {
				panic("not seen: " + moment)
			}
			since[moment] = append(since[moment], t.seen[moment].Sub(t.seen[moments[0]]))
		}
	}
	var rows [][]string
	before := time.Duration(0)
	for _, moment := range moments {
		at := median(since[moment])
		rows = append(rows, []string{moment, inMilliseconds(at), inMilliseconds(at - before)})
		if at < before {
			b.fault("timeline: before it was to come: %s", moment)
		}
		before = at
	}
	b.write("timeline", report.Table([]string{"moment", "after the start", "after the one before"}, rows)+
		fmt.Sprintf("\n`certfetcher --version` takes %s from start to end.\n", inMilliseconds(idle.median(wall))))
}

// awaitFile has something done as soon as a file is in the directory. done waits for that.
func awaitFile(dir, name string, do func()) (done func()) {
	watcher := fixture.Must(fsnotify.NewWatcher())
	fixture.Must(0, watcher.Add(dir))
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		for event := range watcher.Events {
			if filepath.Base(event.Name) == name {
				do()
				return
			}
		}
	}()
	return func() { <-seen; watcher.Close() }
}
