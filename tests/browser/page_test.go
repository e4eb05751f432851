package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/log-capturer/log_capturer/internal/server"
)

// patience is for a machine that has other things to do.
const patience = 60 * time.Second

// tab is a page in a browser of its own, with what went wrong in it.
type tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps the page in it

	mu     sync.Mutex
	faults []string
	loads  int
}

// open starts a browser with a window of this width, opens url, and fails the test
// at its end if the browser has complained of anything.
func open(t *testing.T, url string, width int64, scripts bool, features ...*emulation.MediaFeature) *tab {
	t.Helper()
	alloc, stopBrowser := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.WSURLReadTimeout(patience))...)
	t.Cleanup(stopBrowser)
	ctx, closeTab := chromedp.NewContext(alloc)
	t.Cleanup(closeTab)
	p := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatalf("start Chromium (on Debian: apt-get install chromium): %v", err)
	}
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, f := range p.faults {
			t.Error(f)
		}
	})
	call(p, runtime.Enable, cdp.Empty{})
	call(p, cdplog.Enable, cdp.Empty{})
	call(p, network.Enable, network.EnableParams{})
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 600})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
	p.do(chromedp.Navigate(url))
	return p
}

// limited gives a context for one step.
func (p *tab) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.ctx, patience)
}

// call sends one command to the browser.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := p.limited()
	defer cancel()
	r, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *tab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault := func(format string, args ...any) { p.faults = append(p.faults, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		fault("the console has a message of type %s: %v", e.Type, e.Args)
	case *runtime.EventExceptionThrown:
		fault("a script failed: %+v", e.ExceptionDetails)
	case *cdplog.EventEntryAdded: // also violations of the policy
		fault("the browser complains: %s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
	case *network.EventRequestWillBeSent:
		if e.Type == network.ResourceTypeDocument {
			p.loads++
		}
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 {
			fault("%s: status %d", e.Response.URL, e.Response.Status)
		}
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := p.limited()
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// script runs an expression in the page, and waits for it if it is a promise.
func (p *tab) script(expression string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](expression, chromedp.EvalAwaitPromise))
}

// text gives what an expression in the page is, as text.
func (p *tab) text(expression string) string {
	p.t.Helper()
	ctx, cancel := p.limited()
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return s
}

// until waits for an expression in the page to be so.
func (p *tab) until(want, expression string) {
	p.t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if got = p.text(expression); got == want {
			return
		}
		p.script("new Promise((done) => setTimeout(done, 50))")
	}
	p.t.Fatalf("%s is %q, not %q", expression, got, want)
}

// live waits until the script has put the first answer onto the page.
func (p *tab) live() {
	p.t.Helper()
	p.until("on", `document.getElementById("live").className`)
}

// shot keeps a picture of the whole page, for people, if a directory is named.
func (p *tab) shot(name string) {
	p.t.Helper()
	dir := os.Getenv("LOG_CAPTURER_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := p.limited()
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

const rows = `[...document.querySelectorAll("#t-containers tbody tr")]`

// TestWithoutScript: the page says everything without JavaScript.
func TestWithoutScript(t *testing.T) {
	p := open(t, serve(t, trouble()), 1280, false)
	body := p.text("document.body.innerText")
	for _, want := range []string{
		"In trouble: the store does not accept lines, and 2 more problems", "11 containers", "lag 3 min 4 s",
		"nothing is lost while there is room for it", "3.0 MiB, 2 gaps", "28 MiB unread", "input/output error",
		"api-1", "images.example/shop/gateway:1.29.3", "log driver local keeps no file that can be read", "12 dead letters, 3 malformed",
		"filling", "1 h 33 min", "journald", "over after 1 min 35 s", "/var/lib/log_capturer", "v1.4.0", "not captured", "Without JavaScript",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	if got := p.text(rows + ".length"); got != "12" {
		t.Errorf("%s rows", got)
	}
	if got := p.text(`document.getElementById("tools").hidden`); got != "true" {
		t.Error("tools are shown that cannot work")
	}
	if got := p.text(`document.querySelectorAll("#problems a[href^='https://github.com/log-capturer/log_capturer/blob/main/HYBRID_MONITOR_TROUBLESHOOTING.md#']").length`); got != "3" {
		t.Errorf("%s links to what is to be done", got)
	}
	p.shot("no-script")
}

// TestSameWords: the script writes the page as the server has.
func TestSameWords(t *testing.T) {
	url := serve(t, trouble())
	const structure = `JSON.stringify([...document.querySelectorAll("#t-containers tbody tr, #t-events tbody tr")].map((tr) => tr.className + " " + [...tr.children].map((c) => c.tagName + c.className.trim() + (c.dataset.label || "")).join()))`
	server := open(t, url, 1280, false)
	script := open(t, url, 1280, true)
	script.live()
	for _, expression := range []string{structure, `document.getElementById("facts").children.length`, `document.getElementById("headline").className`, `document.title`} {
		if a, b := server.text(expression), script.text(expression); a != b {
			t.Errorf("%s:\nserver %s\nscript %s", expression, a, b)
		}
	}
	for _, id := range []string{"problems", "verdict", "figures"} {
		expression := `document.getElementById("` + id + `").textContent.replace(/\s+/g, "")`
		if a, b := server.text(expression), script.text(expression); a != b {
			t.Errorf("%s:\nserver %s\nscript %s", id, a, b)
		}
	}
}

// TestLive: what changes is on the page without its being loaded again; what one
// has chosen stays.
func TestLive(t *testing.T) {
	s := well()
	p := open(t, serve(t, s), 1280, true)
	p.live()
	p.until("All is well", `document.getElementById("verdict").textContent`)
	p.script(`window.mark = document.querySelector("#t-containers tbody tr")`)
	p.do(chromedp.SendKeys("#filter", "api"))
	p.until("2", rows+".length")
	s.change(func(o *server.Overview) {
		o.Health.Status = server.StatusDegraded
		o.Health.Problems = []server.Problem{{What: "3 containers are not captured: their logs cannot be read as the agent is configured", Remedy: "allow streaming"}}
		o.Containers[0].LinesDelivered = 7_654_321
		o.Containers = append(o.Containers, container(30, "api-3", "example.com/api:2", "json-file", server.MethodFileMonitor, keepsFile))
	})
	p.until("Attention: 3 containers are not captured", `document.getElementById("verdict").textContent`)
	p.until("warn", `document.getElementById("headline").className`)
	p.until("3", rows+".length")
	p.until("7,654,321", rows+`.find((r) => r.cells[0].innerText.startsWith("api-1")).cells[5].innerText`)
	p.until("true", `window.mark.isConnected`)
	s.change(func(o *server.Overview) { o.Containers = o.Containers[1:] })
	p.until("2", rows+".length")
	if p.loads != 1 {
		t.Errorf("the page was loaded %d times", p.loads)
	}
}

// TestFilterAndSort goes through what one can choose, by keyboard.
func TestFilterAndSort(t *testing.T) {
	p := open(t, serve(t, trouble()), 1280, true)
	p.live()
	const names = rows + `.map((r) => r.cells[0].querySelector(".t").textContent).join()`
	p.until("db,frontend,api-1,api-2,cache,gateway,ledger,legacy,mailer,probe,syslogd,worker-1", names)
	const head = `#t-containers thead th:nth-child(%d) button`
	p.do(chromedp.Focus(fmt.Sprintf(head, 1)), chromedp.KeyEvent("\r"))
	p.until("api-1,api-2,cache,db,frontend,gateway,ledger,legacy,mailer,probe,syslogd,worker-1", names)
	p.until("ascending", `document.querySelector("#t-containers th").getAttribute("aria-sort")`)
	p.do(chromedp.KeyEvent("\r"))
	p.until("worker-1,syslogd,probe,mailer,legacy,ledger,gateway,frontend,db,cache,api-2,api-1", names)
	p.do(chromedp.Click(fmt.Sprintf(head, 4)))
	p.until("db", names+`.split(",")[0]`)
	p.until("descending", `document.querySelectorAll("#t-containers th")[3].getAttribute("aria-sort")`)
	p.do(chromedp.Click("#trouble"))
	p.until("db,frontend", names)
	p.until("2 of 12 shown", `document.getElementById("shown").textContent`)
	p.do(chromedp.Click("#trouble"), chromedp.SetValue("#route", "streaming"))
	p.script(`document.getElementById("route").dispatchEvent(new Event("input"))`)
	p.until("frontend,legacy,syslogd", names)
	p.do(chromedp.SendKeys("#filter", "JOURNALD"))
	p.until("syslogd", names)
	p.do(chromedp.SendKeys("#filter", "nothing"))
	p.until("None is as the filter wants it.", `document.getElementById("e-containers").innerText`)
}

// TestHidden: a page that nobody looks at asks for nothing.
func TestHidden(t *testing.T) {
	p := open(t, serve(t, well()), 1280, true)
	p.live()
	// A page is hidden to its script by what it is told alone.
	p.script(`Object.defineProperty(document, "hidden", {get: () => window.away}); window.away = true; window.asked = 0;
		const real = window.fetch; window.fetch = (...a) => { window.asked++; return real(...a); }; new Promise((done) => setTimeout(done, 5000))`)
	if got := p.text("window.asked"); got != "0" {
		t.Errorf("asked %s times while hidden", got)
	}
	p.script(`window.away = false; document.dispatchEvent(new Event("visibilitychange"))`)
	p.until("true", "window.asked > 0")
}

// TestThousand: a thousand containers can be worked with.
func TestThousand(t *testing.T) {
	p := open(t, serve(t, thousand()), 1280, true)
	p.live()
	p.until("1000", rows+".length")
	took := p.text(`(() => { const began = performance.now(); const f = document.getElementById("filter");
		f.value = "service-07"; f.dispatchEvent(new Event("input")); const height = document.body.offsetHeight; return height && performance.now() - began; })()`)
	p.until("100", rows+".length")
	t.Logf("filtering takes %s ms", took)
	var ms float64
	if _, err := fmt.Sscan(took, &ms); err != nil || ms > 1000 {
		t.Errorf("filtering takes %s ms", took)
	}
	p.shot("thousand")
}

// TestHostile: what containers call themselves is text, and can be seen.
func TestHostile(t *testing.T) {
	for _, scripts := range []bool{false, true} {
		t.Run(fmt.Sprintf("scripts %v", scripts), func(t *testing.T) {
			p := open(t, serve(t, hostile()), 1280, scripts)
			if scripts {
				p.live()
			}
			for want, expression := range map[string]string{
				"undefined": "window.harm",
				"0":         `document.querySelectorAll("main script, main img, main b, [onerror]").length`,
				"7":         rows + ".length",
				"1":         `document.getElementsByTagName("script").length`,
				"-1":        `document.body.innerText.search(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/)`,
				"true":      `document.documentElement.outerHTML.length < 100000`,
			} {
				if got := p.text(expression); got != want {
					t.Errorf("%s is %s, not %s", expression, got, want)
				}
			}
			body := p.text("document.body.innerText")
			for _, want := range []string{"<script>window.harm = 1</script>", `abc\u202egpj.exe\u2066`, `nul\x00esc\x1b[31mbell\a\r\nnext\xff`, "xxx…", "{{.Verdict}} ${x}"} {
				if !strings.Contains(body, want) {
					t.Errorf("%q cannot be seen", want)
				}
			}
			p.wide()
			p.shot(fmt.Sprintf("hostile-%v", scripts))
		})
	}
}

// wide reports an error if the page is wider than its window.
func (p *tab) wide() {
	p.t.Helper()
	if got := p.text(`document.documentElement.scrollWidth <= document.documentElement.clientWidth`); got != "true" {
		p.t.Errorf("the page is %s wide in a window of %s: %s", p.text("document.documentElement.scrollWidth"), p.text("document.documentElement.clientWidth"),
			p.text(`[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((e) => e.tagName + "#" + e.id + "." + e.className).slice(0, 8).join(" ")`))
	}
}

// TestWidths: the page fits into windows of every width.
func TestWidths(t *testing.T) {
	for _, c := range []struct {
		name  string
		scene *scene
	}{{"well", well()}, {"trouble", trouble()}, {"hostile", hostile()}} {
		url := serve(t, c.scene)
		for _, width := range []int64{320, 375, 800, 1280} {
			t.Run(fmt.Sprintf("%s %d", c.name, width), func(t *testing.T) {
				p := open(t, url, width, true)
				p.live()
				p.wide()
				p.shot(fmt.Sprintf("%s-%d", c.name, width))
			})
		}
	}
}

// contrast is a program that gives every text of the page whose contrast with what
// is behind it is below that of WCAG's level AA.
const contrast = `(() => {
	const rgb = (s) => { const m = s.match(/[\d.]+/g).map(Number); return {r: m[0], g: m[1], b: m[2], a: m.length > 3 ? m[3] : 1}; };
	const light = (c) => { const f = [c.r, c.g, c.b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
	const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.a === 1) return c; } return {r: 255, g: 255, b: 255}; };
	const poor = [];
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.offsetParent) continue;
		const style = getComputedStyle(e), size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
		const a = light(rgb(style.color)), b = light(behind(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < (size >= 24 || bold && size >= 18.66 ? 3 : 4.5)) poor.push(e.tagName + "." + e.className + " " + e.textContent.slice(0, 20) + " " + ratio.toFixed(2));
	}
	return poor.join("; ");
})()`

// TestContrast looks at every text, light and dark.
func TestContrast(t *testing.T) {
	for name, s := range map[string]*scene{"well": well(), "trouble": trouble()} {
		url := serve(t, s)
		for _, scheme := range []string{"light", "dark"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				p := open(t, url, 1280, true, &emulation.MediaFeature{Name: "prefers-color-scheme", Value: scheme})
				p.live()
				if poor := p.text(contrast); poor != "" {
					t.Errorf("poor contrast: %s", poor)
				}
				p.shot(name + "-" + scheme)
			})
		}
	}
}

// TestNames: everything that one can work with, and every table, has a name.
func TestNames(t *testing.T) {
	p := open(t, serve(t, trouble()), 1280, true)
	p.live()
	for want, expression := range map[string]string{
		"":       `[...document.querySelectorAll("input, select, button, a")].filter((e) => !(e.labels && e.labels.length) && !e.textContent.trim()).map((e) => e.outerHTML).join()`,
		"0":      `document.querySelectorAll("thead th:not([scope=col]), tbody th:not([scope=row])").length`,
		"1":      `document.querySelectorAll("h1").length`,
		"true":   `[...document.querySelectorAll("table")].every((t) => document.getElementById(t.getAttribute("aria-labelledby")).textContent)`,
		"en":     `document.documentElement.lang`,
		"polite": `document.getElementById("verdict").getAttribute("aria-live")`,
	} {
		if got := p.text(expression); got != want {
			t.Errorf("%s is %q, not %q", expression, got, want)
		}
	}
}
