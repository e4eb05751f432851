package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// statuses gives those of checks, as letters.
func statuses(all []Check) string {
	var b strings.Builder
	for _, c := range all {
		b.WriteByte(map[Status]byte{Skip: '-', OK: 'o', Warn: 'w', Fail: 'F'}[c.Status])
	}
	return b.String()
}

func TestCheckStore(t *testing.T) {
	plainURL, secure := &url.URL{Scheme: "http", Host: "loki:3100", Path: "/push"}, &url.URL{Scheme: "https", Host: "loki:3100", Path: "/push"}
	now := time.Date(2026, 1, 2, 3, 4, 5, 500e6, time.UTC)
	// well is a way to the store without a fault; each row changes something.
	well := func(change func(*storeFacts)) storeFacts {
		f := storeFacts{
			To:     plainURL,
			steps:  steps{Lookup: true, LookedUp: true, Addresses: []string{"10.0.0.1"}, Connected: "10.0.0.1:3100"},
			Answer: loki.Answer{Status: 204, Date: now.Truncate(time.Second)}, Sent: now, Got: now,
		}
		change(&f)
		return f
	}
	answers := func(status int, text string) func(*storeFacts) {
		return func(f *storeFacts) { f.Answer.Status, f.Answer.Text = status, text }
	}
	secured := func(change func(*storeFacts)) func(*storeFacts) {
		return func(f *storeFacts) {
			f.To, f.Handshake, f.Secured = secure, true, true
			f.TLS = tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{{NotAfter: now.Add(time.Hour * 24 * 365)}}}
			change(f)
		}
	}
	ahead := func(d time.Duration) func(*storeFacts) {
		return func(f *storeFacts) { f.Answer.Date = f.Answer.Date.Add(-d) }
	}
	nothing := func(*storeFacts) {}
	boom, late := errors.New("boom"), errNoAnswer(5*time.Second)
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for what, c := range map[string]struct {
		f        storeFacts
		statuses string // of address, connection, TLS, store, clock, push
		name     string // of the check that want is of
		want     want
	}{
		"well":         {well(nothing), "oo-oo-", nameStore, want{OK, "http://loki:3100/push answers a push of nothing without credentials", ""}},
		"newer Loki":   {well(answers(422, "at least one valid stream")), "oo-oo-", nameStore, want{OK, "", ""}},
		"stdout":       {storeFacts{Stdout: true}, "------", nameStore, want{Skip, "sinks.stdout", ""}},
		"settings":     {storeFacts{Settings: boom}, "F-----", nameAddress, want{Fail, "boom", "sinks.loki"}},
		"no name":      {well(func(f *storeFacts) { f.LookedUp, f.LookupErr, f.Err = false, boom, boom }), "F-----", nameAddress, want{Fail, "loki:3100: boom", "resolv.conf"}},
		"DNS hangs":    {well(func(f *storeFacts) { f.LookedUp, f.LookupErr, f.Err = false, boom, late }), "F-----", nameAddress, want{Fail, "no answer within 5s", "resolv.conf"}},
		"an address":   {well(func(f *storeFacts) { f.Lookup, f.LookedUp = false, false }), "oo-oo-", nameAddress, want{OK, "needs no look-up", ""}},
		"refused":      {well(func(f *storeFacts) { f.Connected, f.ConnectErr, f.Err = "", refused, refused }), "oF----", nameConnection, want{Fail, "loki:3100 cannot be connected to: connection refused", "start the store"}},
		"TCP hangs":    {well(func(f *storeFacts) { f.Connected, f.Err = "", late }), "oF----", nameConnection, want{Fail, "no answer within 5s", "firewalls"}},
		"proxy":        {well(func(f *storeFacts) { f.Proxy, f.Connected, f.ConnectErr, f.Err = "p:3128", "", refused, refused }), "oF----", nameConnection, want{Fail, "the proxy p:3128 cannot", "NO_PROXY"}},
		"no proxy":     {well(func(f *storeFacts) { f.Proxy, f.LookedUp, f.Err = "p:3128", false, boom }), "F-----", nameAddress, want{Fail, "the proxy p:3128: boom", "NO_PROXY"}},
		"never came":   {storeFacts{Err: late}, "oF----", nameConnection, want{Fail, "the store cannot be connected to: no answer", "start the store"}},
		"TLS":          {well(secured(nothing)), "ooooo-", nameTLS, want{OK, "TLS 1.3, certificate until 2027-01-02", ""}},
		"TLS, old":     {well(secured(func(f *storeFacts) { f.TLS.PeerCertificates[0].NotAfter = now.Add(time.Hour) })), "oowoo-", nameTLS, want{Warn, "until 2026-01-02", "renew"}},
		"no TLS":       {well(secured(func(f *storeFacts) { f.Secured, f.HandshakeErr, f.Err = false, boom, boom })), "ooF---", nameTLS, want{Fail, "boom", "speak TLS"}},
		"TLS hangs":    {well(secured(func(f *storeFacts) { f.Secured, f.Err = false, late })), "ooF---", nameTLS, want{Fail, "no answer within 5s", "speak TLS"}},
		"untrusted":    {well(secured(func(f *storeFacts) { f.Secured, f.HandshakeErr = false, &tls.CertificateVerificationError{Err: boom} })), "ooF---", nameTLS, want{Fail, "boom", "ca_file"}},
		"no client":    {well(secured(func(f *storeFacts) { f.Secured, f.HandshakeErr = false, tls.AlertError(42) })), "ooF---", nameTLS, want{Fail, "bad certificate", "cert_file"}},
		"HTTP/2 only":  {well(secured(func(f *storeFacts) { f.Secured, f.HandshakeErr = false, tls.AlertError(120) })), "ooF---", nameTLS, want{Fail, "no application protocol", "HTTP/1.1"}},
		"CONNECT":      {well(secured(func(f *storeFacts) { f.Handshake, f.Secured, f.Proxy, f.Err = false, false, "p:1", boom })), "ooF---", nameTLS, want{Fail, "boom", "NO_PROXY"}},
		"hangs":        {well(func(f *storeFacts) { f.Err = late }), "oo-F--", nameStore, want{Fail, "no answer within 5s", "store's log"}},
		"a web page":   {well(answers(200, "<html>")), "oo-F--", nameStore, want{Fail, "answers 200", "sinks.loki.url"}},
		"blocked":      {well(answers(260, "")), "oo-F--", nameStore, want{Fail, "260", "block_ingestion_until"}},
		"who?":         {well(answers(401, "Unauthorized")), "oo-F--", nameStore, want{Fail, "answers 401 without credentials: Unauthorized", "basic_auth"}},
		"not you":      {well(func(f *storeFacts) { f.Auth, f.Tenant, f.Answer.Status = true, "t1", 403 }), "oo-F--", nameStore, want{Fail, "answers 403 with these credentials, for tenant t1", "tenant_id"}},
		"whose?":       {well(answers(401, "no org id")), "oo-F--", nameStore, want{Fail, "no org id", "set sinks.loki.tenant_id"}},
		"elsewhere":    {well(answers(302, "")), "oo-F--", nameStore, want{Fail, "302", "redirects"}},
		"not here":     {well(answers(404, "404 page not found")), "oo-F--", nameStore, want{Fail, "404", "path"}},
		"not so fast":  {well(answers(429, "limit")), "oo-wo-", nameStore, want{Warn, "429", "ingestion_rate_mb"}},
		"ill":          {well(answers(503, "")), "oo-F--", nameStore, want{Fail, "503", "store's log"}},
		"odd":          {well(answers(418, "")), "oo-F--", nameStore, want{Fail, "418", "push API"}},
		"clock":        {well(nothing), "oo-oo-", nameClock, want{OK, "agree within 1s", ""}},
		"no clock":     {well(func(f *storeFacts) { f.Answer.Date = time.Time{} }), "oo-o--", nameClock, want{Skip, "does not tell", ""}},
		"near enough":  {well(ahead(10 * time.Second)), "oo-oo-", nameClock, want{OK, "within 10s", ""}},
		"ahead":        {well(ahead(11 * time.Second)), "oo-ow-", nameClock, want{Warn, "11s ahead", "NTP"}},
		"behind":       {well(ahead(-time.Hour)), "oo-ow-", nameClock, want{Warn, "1h0m0s behind", "NTP"}},
		"far ahead":    {well(ahead(time.Hour)), "oo-oF-", nameClock, want{Fail, "1h0m0s ahead of the store's, which refuses", "NTP"}},
		"pushed":       {well(func(f *storeFacts) { f.Pushed = true }), "oo-ooo", namePush, want{OK, `job="log_capturer_doctor"`, ""}},
		"push refused": {well(func(f *storeFacts) { f.Pushed, f.PushErr = true, boom }), "oo-ooF", namePush, want{Fail, "boom", "limits"}},
		"not pushed":   {well(nothing), "oo-oo-", namePush, want{Skip, "--push-test", ""}},
	} {
		got := checkStore(c.f)
		if statuses(got) != c.statuses {
			t.Errorf("%s: %s, want %s: %+v", what, statuses(got), c.statuses, got)
			continue
		}
		is(t, what, got[slices.IndexFunc(got, func(g Check) bool { return g.Name == c.name })], c.want)
	}
}

// storeOptions are options with a store at an address.
func storeOptions(address string) Options {
	cfg := &config.Config{Host: "here"}
	cfg.Sinks.Loki.URL = address
	return Options{Config: cfg, Store: loki.Config{URL: cfg.Sinks.Loki.PushURL()}}
}

// TestGatherStore goes to a stand-in for Loki that wants a password and a tenant.
func TestGatherStore(t *testing.T) {
	opt := lokitest.Default()
	opt.User, opt.Password, opt.Tenant = "me", "open-sesame", "t1"
	l := lokitest.New(opt)
	t.Cleanup(l.Close)

	o := storeOptions(l.URL)
	f := gatherStore(t.Context(), o)
	if f.Err != nil || f.Answer.Status != 401 || f.Connected == "" || f.Lookup || f.Auth || f.Answer.Date.IsZero() {
		t.Errorf("without a password: %+v", f)
	}
	o.Config.Sinks.Loki.BasicAuth.Username = "me"
	o.Store.Username, o.Store.Password, o.Store.TenantID = "me", "open-sesame", "t1"
	f = gatherStore(t.Context(), o)
	if got := statuses(checkStore(f)); got != "oo-oo-" || !f.Auth || f.Pushed || len(l.Texts()) != 0 {
		t.Errorf("with a password: %s, stored %q: %+v", got, l.Texts(), f)
	}
	o.PushTest = true
	f = gatherStore(t.Context(), o)
	if got := statuses(checkStore(f)); got != "oo-ooo" {
		t.Errorf("with a line: %s: %+v", got, f)
	}
	lines := l.Lines(`job="log_capturer_doctor"`)
	if len(lines) != 1 || lines[0].Text != pushedText || lines[0].Stream != `{host="here", job="log_capturer_doctor"}` {
		t.Errorf("stored %+v", lines)
	}
	limits := lokitest.DefaultLimits()
	limits.MaxLine = 10
	l.SetLimits(limits)
	if f = gatherStore(t.Context(), o); f.PushErr == nil || !strings.Contains(f.PushErr.Error(), "line") {
		t.Errorf("a store that refuses the line: %v", f.PushErr)
	}
	o.Store.Password = "wrong-sesame"
	if f = gatherStore(t.Context(), o); f.Pushed || f.Answer.Status != 401 {
		t.Errorf("a line was sent to a store that refuses us: %+v", f)
	}
	for _, c := range checkStore(f) {
		if strings.Contains(c.Message+c.Remedy, "sesame") {
			t.Errorf("a secret is shown: %+v", c)
		}
	}
	o.Store.PasswordFile = "/nowhere"
	if f = gatherStore(t.Context(), o); f.Settings == nil {
		t.Errorf("settings that cannot be used: %+v", f)
	}
}

// TestGatherStoreFails: who does not answer, or does not speak TLS.
func TestGatherStoreFails(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	address := closed.URL
	closed.Close()
	if f := gatherStore(t.Context(), storeOptions(address)); statuses(checkStore(f)) != "oF----" {
		t.Errorf("nobody there: %+v", f)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	if f := gatherStore(t.Context(), storeOptions(strings.Replace(plain.URL, "http:", "https:", 1))); statuses(checkStore(f)) != "ooF---" {
		t.Errorf("no TLS there: %+v", f)
	}
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	f := gatherStore(t.Context(), storeOptions(secure.URL))
	if c := checkStore(f); statuses(c) != "ooF---" || !strings.Contains(c[2].Remedy, "ca_file") {
		t.Errorf("an unknown certificate: %+v", c)
	}
}

// TestGatherStoreHangs: a store that accepts connections and does not answer.
func TestGatherStoreHangs(t *testing.T) {
	gone := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-gone
	}))
	t.Cleanup(func() { close(gone); hanging.Close() })
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errNoAnswer(50*time.Millisecond))
	defer cancel()
	f := gatherStore(ctx, storeOptions(hanging.URL))
	if c := checkStore(f); statuses(c) != "oo-F--" || !strings.Contains(c[3].Message, "no answer within 50ms") {
		t.Errorf("%+v", c)
	}
}
