package browser

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestAgent watches the page of the real agent, on a real engine, while its store
// goes away.
func TestAgent(t *testing.T) {
	harness.NeedDocker(t)
	t.Chdir("../..") // the harness looks for the product's module
	d := harness.StartDockerd(t)
	chatty := []string{"-lines", "0", "-rate", "20", "-prefix", "hello"}
	d.Run(t, harness.ContainerSpec{Name: "web", Cmd: chatty})
	d.Run(t, harness.ContainerSpec{Name: "legacy", Driver: "local", Cmd: chatty})
	// A store that takes everything, and one day nothing.
	var gone atomic.Bool
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if gone.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(store.Close)
	a := harness.StartAgent(t, d.Host, store.URL, "")
	p := open(t, "http://"+a.Addr+"/", 1280, true)
	p.live()
	p.until("2", rows+".length")
	p.until("All is well", `document.getElementById("verdict").textContent`)
	p.until("file log driver json-file keeps a file", rows+`.find((r) => r.cells[0].innerText.startsWith("web")).cells[1].innerText.replace(/\s+/g, " ")`)
	p.until("streaming", rows+`.find((r) => r.cells[0].innerText.startsWith("legacy")).cells[1].querySelector(".t").textContent`)
	p.until("true", rows+`.every((r) => Number(r.cells[5].innerText) > 0 && Number(r.cells[4].innerText) > 0)`)
	p.shot("agent-well")
	gone.Store(true)
	p.until("true", `document.getElementById("verdict").textContent.includes("the store does not accept lines")`)
	p.until("true", `document.getElementById("t-events").innerText.includes("the store does not accept lines")`)
	if p.loads != 1 {
		t.Errorf("the page was loaded %d times", p.loads)
	}
	p.shot("agent-trouble")
}
