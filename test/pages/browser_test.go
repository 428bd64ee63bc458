package pages

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// browser is a headless Chromium that is told what to do by the Chrome DevTools Protocol, over a pair of pipes.
type browser struct {
	t     testing.TB
	write *os.File
	mu    sync.Mutex
	next  int
	calls map[int]chan reply
	tabs  map[string]*tab // by session
}

type reply struct {
	ID        int
	Method    string
	SessionID string
	Params    json.RawMessage
	Result    json.RawMessage
	Error     *struct{ Message string }
}

// startBrowser starts Chromium until the test ends.
func startBrowser(t testing.TB) *browser {
	t.Helper()
	path := fixture.RequirePrograms(t, "chromium")[0]
	theirs, ours, err := os.Pipe()
	require.NoError(t, err)
	mine, from, err := os.Pipe()
	require.NoError(t, err)
	b := &browser{t: t, write: ours, calls: map[int]chan reply{}, tabs: map[string]*tab{}}
	cmd := exec.Command(path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb", "--user-data-dir="+t.TempDir(),
		"about:blank")
	cmd.ExtraFiles = []*os.File{theirs, from} // descriptors 3 and 4
	require.NoError(t, cmd.Start())
	theirs.Close()
	from.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.read(bufio.NewReader(mine))
	}()
	t.Cleanup(func() {
		ours.Close() // whereupon Chromium ends
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		mine.Close()
	})
	return b
}

// read takes what Chromium says until it ends.
func (b *browser) read(from *bufio.Reader) {
	for {
		text, err := from.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			for _, call := range b.calls {
				close(call)
			}
			b.calls = nil
			b.mu.Unlock()
			return
		}
		var r reply
		if json.Unmarshal(text[:len(text)-1], &r) != nil {
			continue
		}
		b.mu.Lock()
		if call, ok := b.calls[r.ID]; ok && r.ID > 0 {
			call <- r
			delete(b.calls, r.ID)
		} else if tab := b.tabs[r.SessionID]; tab != nil {
			tab.hear(r)
		}
		b.mu.Unlock()
	}
}

// call has Chromium do something and puts the result into the value.
func (b *browser) call(session, method string, params map[string]any, result any) {
	b.t.Helper()
	b.mu.Lock()
	require.NotNil(b.t, b.calls, "Chromium has ended")
	b.next++
	call := make(chan reply, 1)
	b.calls[b.next] = call
	message := map[string]any{"id": b.next, "method": method, "params": params}
	if session != "" {
		message["sessionId"] = session
	}
	b.mu.Unlock()
	_, err := b.write.Write(append(fixture.Must(json.Marshal(message)), 0))
	require.NoError(b.t, err)
	select {
	case r, ok := <-call:
		require.True(b.t, ok, "Chromium has ended")
		require.Nil(b.t, r.Error, "%s: %+v", method, r.Error)
		if result != nil {
			require.NoError(b.t, json.Unmarshal(r.Result, result))
		}
	case <-time.After(time.Minute):
		require.Fail(b.t, "no answer from Chromium", method)
	}
}

// tab is a page of its own, and what was wrong with what it showed.
type tab struct {
	*browser
	session string
	loaded  chan struct{}
	faults  []string // from the console, failed requests and exceptions
	asked   []string // URLs
}

// open makes a tab with the width in CSS pixels and the color scheme, light or dark.
func (b *browser) open(width int, scheme string) *tab {
	b.t.Helper()
	var target struct{ TargetID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	tab := &tab{browser: b, session: session.SessionID, loaded: make(chan struct{}, 100)}
	b.mu.Lock()
	b.tabs[session.SessionID] = tab
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Log", "Runtime", "Network", "Audits"} {
		tab.do(domain+".enable", nil, nil)
	}
	tab.size(width, 900)
	tab.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{
		{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	return tab
}

func (p *tab) size(width, height int) {
	p.t.Helper()
	p.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height,
		"deviceScaleFactor": 1, "mobile": width < 600}, nil)
}

func (p *tab) do(method string, params map[string]any, result any) {
	p.t.Helper()
	if params == nil {
		params = map[string]any{}
	}
	p.call(p.session, method, params, result)
}

// hear notes an event.
func (p *tab) hear(r reply) {
	switch r.Method {
	case "Page.loadEventFired":
		p.loaded <- struct{}{}
	case "Network.requestWillBeSent":
		var event struct{ Request struct{ URL string } }
		_ = json.Unmarshal(r.Params, &event)
		p.asked = append(p.asked, event.Request.URL)
	case "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed",
		"Audits.issueAdded":
		p.faults = append(p.faults, r.Method+" "+string(r.Params))
	}
}

// load shows a page and waits until all of it is there.
func (p *tab) load(url string) {
	p.t.Helper()
	var result struct{ ErrorText string }
	p.do("Page.navigate", map[string]any{"url": url}, &result)
	require.Empty(p.t, result.ErrorText, url)
	select {
	case <-p.loaded:
	case <-time.After(time.Minute):
		require.Fail(p.t, "the page was not loaded", url)
	}
}

// value is what a JavaScript expression gives.
func (p *tab) value(expression string) any {
	p.t.Helper()
	var result struct {
		Result           struct{ Value any }
		ExceptionDetails any
	}
	p.do("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &result)
	require.Nil(p.t, result.ExceptionDetails, expression)
	return result.Result.Value
}

// texts are those of the elements that a selector finds, in one line each.
func (p *tab) texts(selector string) (list []string) {
	p.t.Helper()
	found := p.value(fmt.Sprintf("[...document.querySelectorAll(%q)].map(e => e.innerText)", selector))
	for _, text := range found.([]any) {
		list = append(list, strings.Join(strings.Fields(text.(string)), " "))
	}
	return list
}

// picture is a PNG of the whole page, or of so many pixels from its top.
func (p *tab) picture(width, most int) []byte {
	p.t.Helper()
	height := int(p.value("document.documentElement.scrollHeight").(float64))
	var shot struct{ Data []byte }
	p.do("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true,
		"clip": map[string]any{"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}}, &shot)
	return shot.Data
}
