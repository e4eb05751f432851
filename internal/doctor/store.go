package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/loki"
)

const (
	// skewed is how far the store's clock may be from ours unnoticed.
	skewed = 10 * time.Second
	// refusedAhead is how far ahead lines may be that Loki takes
	// (creation_grace_period).
	refusedAhead = 10 * time.Minute
	// expiresSoon is when a certificate is worth a warning.
	expiresSoon = 14 * 24 * time.Hour
)

// storeFacts is what became of a request to the store.
type storeFacts struct {
	// Stdout: there is no store.
	Stdout bool
	// Settings is why no request can be made as configured.
	Settings error
	// To is the address without secrets; Proxy the proxy on the way, "" for none;
	// Tenant the tenant_id.
	To     *url.URL
	Proxy  string
	Tenant string
	Auth   bool // credentials are sent

	steps
	// Answer is the store's, of a request from Sent to Got, without Err.
	Answer    loki.Answer
	Err       error
	Sent, Got time.Time
	// Pushed: a line was pushed for a try; PushErr is why it was not taken.
	Pushed  bool
	PushErr error
}

// steps is how far a request has come, as httptrace tells.
type steps struct {
	Lookup       bool // a name was looked up
	LookedUp     bool // and found, with
	Addresses    []string
	LookupErr    error
	Connected    string // the address
	ConnectErr   error  // of the last address that was tried
	Handshake    bool
	Secured      bool
	TLS          tls.ConnectionState
	HandshakeErr error
}

// tracer notes the steps. It is called by several goroutines: several addresses of a
// store are tried at once, and some do not end with the request.
type tracer struct {
	mu sync.Mutex
	steps
}

func (t *tracer) hooks() *httptrace.ClientTrace {
	note := func(f func()) {
		t.mu.Lock()
		defer t.mu.Unlock()
		f()
	}
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { note(func() { t.Lookup = true }) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			note(func() {
				t.LookedUp, t.LookupErr = i.Err == nil, i.Err
				for _, a := range i.Addrs {
					t.Addresses = append(t.Addresses, a.String())
				}
			})
		},
		ConnectDone: func(_, addr string, err error) {
			note(func() {
				if err == nil {
					t.Connected = addr
				} else {
					t.ConnectErr = err
				}
			})
		},
		TLSHandshakeStart: func() { note(func() { t.Handshake = true }) },
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			note(func() { t.Secured, t.TLS, t.HandshakeErr = err == nil, s, err })
		},
	}
}

func (t *tracer) get() steps {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.steps
}

// gatherStore pushes nothing to the store, and a line if that is wanted.
func gatherStore(ctx context.Context, o Options) (f storeFacts) {
	if o.Config.Sinks.Stdout.Enabled {
		return storeFacts{Stdout: true}
	}
	f.Tenant = o.Store.TenantID
	l := o.Config.Sinks.Loki
	_, header := l.Headers["Authorization"]
	f.Auth = l.BasicAuth.Username != "" || l.BearerTokenFile != "" || header
	c, err := loki.New(o.Store)
	if err != nil {
		f.Settings = err
		return f
	}
	defer c.Close()
	f.To, f.Proxy = c.Address()
	probe, cancel := context.WithTimeoutCause(ctx, storeLimit, errNoAnswer(storeLimit))
	defer cancel()
	t := &tracer{}
	f.Sent = time.Now()
	f.Answer, f.Err = c.Probe(httptrace.WithClientTrace(probe, t.hooks()))
	f.Got = time.Now()
	f.steps = t.get()
	if o.PushTest && f.Err == nil && accepted(f.Answer.Status) {
		f.Pushed = true
		f.PushErr = push(ctx, c, o.Config.Host)
	}
	return f
}

// pushedText is the line that is pushed for a try.
const pushedText = "log_capturer doctor: a line sent by hand with --push-test to see whether the store takes lines; it may be ignored"

// push sends one line.
func push(ctx context.Context, c *loki.Client, host string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, storeLimit, errNoAnswer(storeLimit))
	defer cancel()
	src := &entry.Source{Name: "log_capturer_doctor", Stats: &entry.Stats{}}
	for class := range src.Labels {
		src.Labels[class] = entry.NewLabels(entry.Label{Name: "job", Value: "log_capturer_doctor"}, entry.Label{Name: "host", Value: host})
	}
	var b entry.Batch
	b.Begin(src)
	b.Text = append(b.Text, pushedText...)
	b.Add(time.Now().UnixNano(), 0, entry.ClassStdout, 0)
	b.End()
	out := c.Push(ctx, &b, func(context.Context) {})
	if out.Err == nil && len(b.Refusals) > 0 {
		return errors.New(b.Refusals[0].Reason)
	}
	return out.Err
}

// accepted says whether an answer to a push of nothing says that one of lines
// would be taken: that nothing is too little is said after all else was found right.
func accepted(status int) bool {
	return status == http.StatusOK || status == http.StatusNoContent || status == http.StatusBadRequest || status == http.StatusUnprocessableEntity
}

// checkStore follows the way to the store, step by step. What comes after a step
// that fails is not looked at.
func checkStore(f storeFacts) []Check {
	names := []string{nameAddress, nameConnection, nameTLS, nameStore, nameClock, namePush}
	if f.Stdout {
		return skipped(names, "sinks.stdout.enabled: there is no store")
	}
	if f.Settings != nil {
		return append([]Check{{nameAddress, Fail, f.Settings.Error(), "correct sinks.loki: the agent does not start with it"}},
			skipped(names[1:], "sinks.loki cannot be used")...)
	}
	var all []Check
	for i, check := range []func(storeFacts) Check{checkAddress, checkConnection, checkTLS, checkAnswer, checkClock, checkPush} {
		c := check(f)
		all = append(all, c)
		if c.Status == Fail && i < 4 {
			return append(all, skipped(names[i+1:], names[i]+" failed")...)
		}
	}
	return all
}

func skipped(names []string, why string) (all []Check) {
	for _, n := range names {
		all = append(all, Check{Name: n, Status: Skip, Message: why})
	}
	return all
}

// target is who is connected to: the store, or the proxy before it.
func (f *storeFacts) target() string {
	if f.Proxy != "" {
		return "the proxy " + f.Proxy
	}
	if f.To == nil { // it did not get that far
		return "the store"
	}
	return f.To.Host
}

// cause is why a step has failed: that it took too long is better said in our words.
func (f *storeFacts) cause(of error) error {
	var late errNoAnswer
	if errors.As(f.Err, &late) {
		return f.Err
	}
	return cmp.Or(of, f.Err)
}

const proxyRemedy = "correct HTTP_PROXY, HTTPS_PROXY or NO_PROXY of the environment"

func (f *storeFacts) remedy(direct string) string {
	if f.Proxy != "" {
		return proxyRemedy
	}
	return direct
}

// checkAddress: is the store's name known?
func checkAddress(f storeFacts) Check {
	switch {
	case f.LookupErr != nil, f.Lookup && !f.LookedUp:
		return Check{nameAddress, Fail, fmt.Sprintf("%s: %v", f.target(), f.cause(f.LookupErr)), f.remedy("correct the host in sinks.loki.url, or the name servers of this machine (/etc/resolv.conf; in a container: its network)")}
	case f.LookedUp:
		return Check{Name: nameAddress, Status: OK, Message: f.target() + " is " + strings.Join(f.Addresses, ", ")}
	}
	return Check{Name: nameAddress, Status: OK, Message: f.target() + " needs no look-up"}
}

// checkConnection: does something listen there?
func checkConnection(f storeFacts) Check {
	switch {
	case f.Connected != "":
		return Check{Name: nameConnection, Status: OK, Message: f.Connected + " accepts connections"}
	case f.ConnectErr != nil || f.Err != nil:
		return Check{nameConnection, Fail, fmt.Sprintf("%s cannot be connected to: %v", f.target(), plain(f.cause(f.ConnectErr))),
			f.remedy("start the store, or correct host and port in sinks.loki.url; look for firewalls (in a container 127.0.0.1 is the container itself)")}
	}
	return Check{Name: nameConnection, Status: OK, Message: f.target() + " is connected"}
}

// plain leaves out of an error what has been said.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// noProtocol is TLS's alert no_application_protocol (RFC 7301, 3.2).
const noProtocol tls.AlertError = 120

// checkTLS: is the store who it should be?
func checkTLS(f storeFacts) Check {
	switch {
	case f.To.Scheme != "https":
		return Check{Name: nameTLS, Status: Skip, Message: "sinks.loki.url begins with http://"}
	case f.Handshake && !f.Secured:
		err := f.cause(f.HandshakeErr)
		remedy := "see the store's log; does it speak TLS at this port?"
		var untrusted *tls.CertificateVerificationError
		var alert tls.AlertError
		switch {
		case errors.As(err, &untrusted):
			remedy = "set sinks.loki.tls.ca_file to who has signed the store's certificate, and tls.server_name to a name in it; look at both clocks"
		case errors.As(err, &alert) && alert == noProtocol:
			remedy = "let the store, or what stands before it, speak HTTP/1.1 at this port: HTTP/2 is not spoken to stores"
		case errors.As(err, &alert):
			remedy = "set sinks.loki.tls.cert_file and key_file, if the store wants to know its clients"
		}
		return Check{nameTLS, Fail, err.Error(), remedy}
	case !f.Secured: // a proxy refused before
		return Check{nameTLS, Fail, fmt.Sprintf("no TLS connection with %s: %v", f.To.Host, f.Err), f.remedy("see the store's log")}
	}
	message := tls.VersionName(f.TLS.Version)
	if len(f.TLS.PeerCertificates) > 0 {
		until := f.TLS.PeerCertificates[0].NotAfter
		message += ", certificate until " + until.UTC().Format(time.DateOnly)
		if until.Sub(f.Got) < expiresSoon {
			return Check{nameTLS, Warn, message, "renew the store's certificate"}
		}
	}
	return Check{Name: nameTLS, Status: OK, Message: message}
}

// checkAnswer: does the store take lines from us?
func checkAnswer(f storeFacts) Check {
	as := "without credentials"
	if f.Auth {
		as = "with these credentials"
	}
	if f.Tenant != "" {
		as += ", for tenant " + f.Tenant
	}
	fail := func(remedy string) Check {
		message := fmt.Sprintf("%s answers %d %s", f.To, f.Answer.Status, as)
		switch {
		case f.Err != nil:
			message = fmt.Sprintf("%s: %v", f.To, f.Err)
		case f.Answer.Text != "":
			message += ": " + f.Answer.Text
		}
		return Check{nameStore, Fail, message, remedy}
	}
	switch s := f.Answer.Status; {
	case f.Err != nil:
		return fail("see the store's log; is sinks.loki.url the push API of a log store?")
	case s == http.StatusOK && f.Answer.Text != "":
		return fail("a push is answered without a text: correct sinks.loki.url, it must name Loki's push API")
	case s == 260:
		return fail("ingestion is blocked at the store: look for block_ingestion_until in its limits")
	case s == http.StatusUnauthorized && f.Tenant == "" && strings.Contains(f.Answer.Text, "no org id"):
		return fail("set sinks.loki.tenant_id: the store has tenants")
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return fail("correct sinks.loki.basic_auth, bearer_token_file or tenant_id; they must be allowed to write")
	case s >= 300 && s < 400:
		return fail("redirects are not followed: set sinks.loki.url to the final address")
	case s == http.StatusNotFound, s == http.StatusMethodNotAllowed:
		return fail("correct the path in sinks.loki.url")
	case s == http.StatusTooManyRequests:
		c := fail("the store limits this tenant for now: lines wait; raise its limits (ingestion_rate_mb) if that lasts")
		c.Status = Warn
		return c
	case s >= 500:
		return fail("see the store's log; lines are kept until it is well")
	case accepted(s):
		return Check{Name: nameStore, Status: OK, Message: fmt.Sprintf("%s answers a push of nothing %s in %s", f.To, as, took(f.Got.Sub(f.Sent)))}
	}
	return fail("not an answer of Loki's push API: correct sinks.loki.url, and look at what lies between")
}

// checkClock: do we agree with the store on the time? Lines bear this machine's.
func checkClock(f storeFacts) Check {
	if f.Answer.Date.IsZero() {
		return Check{Name: nameClock, Status: Skip, Message: "the store does not tell its time"}
	}
	// It is told down to a second, at some time between the two.
	here := f.Sent.Add(f.Got.Sub(f.Sent) / 2)
	ahead := here.Sub(f.Answer.Date.Add(500 * time.Millisecond))
	message := fmt.Sprintf("the clocks here and there agree within %v", max(ahead.Abs(), time.Second).Round(time.Second))
	const remedy = "set the clock that is wrong, with NTP (timedatectl, chrony)"
	switch {
	case ahead > refusedAhead:
		return Check{nameClock, Fail, fmt.Sprintf("this clock is %v ahead of the store's, which refuses lines from more than %v ahead", ahead.Round(time.Second), refusedAhead), remedy}
	case ahead > skewed:
		return Check{nameClock, Warn, fmt.Sprintf("this clock is %v ahead of the store's", ahead.Round(time.Second)), remedy}
	case ahead < -skewed:
		return Check{nameClock, Warn, fmt.Sprintf("this clock is %v behind the store's", (-ahead).Round(time.Second)), remedy}
	}
	return Check{Name: nameClock, Status: OK, Message: message}
}

// checkPush: has the store taken a line?
func checkPush(f storeFacts) Check {
	switch {
	case !f.Pushed:
		return Check{Name: namePush, Status: Skip, Message: "no line was sent: --push-test sends one"}
	case f.PushErr != nil:
		return Check{namePush, Fail, f.PushErr.Error(), "see the store's words: its limits, or its log"}
	}
	return Check{Name: namePush, Status: OK, Message: `the store has taken a line, with the label job="log_capturer_doctor"`}
}
