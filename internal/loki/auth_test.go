package loki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// replaceFile puts another file in the place of one, as those who rotate
// secrets do.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestBasicAuth(t *testing.T) {
	for name, set := range map[string]func(*testing.T, *Config){
		"configured": func(_ *testing.T, c *Config) { c.Username, c.Password = "agent", "s3cret-word" },
		"file": func(t *testing.T, c *Config) {
			c.Username, c.PasswordFile = "agent", writeFile(t, "password", "s3cret-word\n")
		},
		"in the URL": func(t *testing.T, c *Config) {
			u, err := url.Parse(c.URL)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword("agent", "s3cret-word")
			c.URL = u.String()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(o *lokitest.Options) { o.User, o.Password = "agent", "s3cret-word" }, func(c *Config) { set(t, c) })
			b := batchOf(labelled("a"), line(start, "x"))
			r.accepted(b, r.push(b))
		})
	}
	t.Run("wrong", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.User, o.Password = "agent", "other" }, func(c *Config) { c.Username, c.Password = "agent", "s3cret-word" })
		b := batchOf(labelled("a"), line(start, "x"))
		if out := r.push(b); out.Err == nil || !out.Config {
			t.Fatalf("outcome %+v", out)
		}
	})
}

func TestBearerTokenIsReadAgain(t *testing.T) {
	var path string
	r := newRig(t, func(o *lokitest.Options) { o.Token = "token-1" }, func(c *Config) {
		path = writeFile(t, "token", "token-1\n")
		c.BearerTokenFile = path
	})
	src := labelled("a")
	send := func(want bool) {
		t.Helper()
		b := batchOf(src, line(r.now(), "x"))
		out := r.push(b)
		if (out.Err == nil) != want {
			t.Fatalf("outcome %+v", out)
		}
	}
	send(true)
	replaceFile(t, path, "token-2\n")
	r.srv.SetToken("token-2")
	send(false) // not yet looked at again
	send(true)  // but at once after a 401
	replaceFile(t, path, "token-3\n")
	r.srv.SetToken("token-3")
	r.pass(lookEvery)
	send(true) // and without one from time to time
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.pass(lookEvery)
	send(true) // the secret that is known is still good
	r.pass(lookEvery)
	send(true)
	if secret, refused := r.metric(reasonSecret), r.metric(reasonConfig); secret != 2 || refused != 1 {
		t.Errorf("counted: unreadable %v times, refused %v times", secret, refused)
	}
	if n := strings.Count(r.log.String(), "cannot be read"); n != 1 {
		t.Fatalf("said %d times: %s", n, r.log)
	}
	replaceFile(t, path, "token-4\n")
	r.srv.SetToken("token-4")
	r.pass(lookEvery)
	send(true)
	if !strings.Contains(r.log.String(), "can be read again") {
		t.Fatalf("recovery not said: %s", r.log)
	}
	if strings.Contains(r.log.String(), "token-") {
		t.Fatal("a token is in the log")
	}
}

// TestSecretsAreNotTold: neither in errors nor in health, whatever the store
// echoes.
func TestSecretsAreNotTold(t *testing.T) {
	r := newRig(t, nil, func(c *Config) {
		c.Username, c.Password = "agent", "s3cret-word"
		c.Headers = map[string]string{"X-Api-Key": "k3y-of-the-door"}
		c.URL = strings.Replace(c.URL, "http://", "http://agent:s3cret-word@", 1) + "?key=qu3ry-secret"
	})
	r.srv.Next(lokitest.Fault{Status: 401, Body: "bad: Basic YWdlbnQ6czNjcmV0LXdvcmQ= (agent:s3cret-word), k3y-of-the-door"}, lokitest.Fault{Reset: true})
	b := batchOf(labelled("a"), line(start, "x"))
	texts := []string{}
	for range 2 {
		out := r.push(b)
		if out.Err == nil {
			t.Fatal("no error")
		}
		texts = append(texts, out.Err.Error(), r.c.Health().LastError)
	}
	r.srv.Close()
	texts = append(texts, r.push(b).Err.Error(), r.log.String())
	for _, s := range texts {
		for _, secret := range []string{"s3cret", "YWdlbnQ6czNjcmV0LXdvcmQ", "k3y-of", "qu3ry"} {
			if strings.Contains(s, secret) {
				t.Errorf("%q is told: %s", secret, s)
			}
		}
	}
	if q := r.srv.Requests()[0]; q.Query != "key=qu3ry-secret" || q.Header.Get("X-Api-Key") != "k3y-of-the-door" {
		t.Fatalf("request %+v", q)
	}
}

func TestBadConfig(t *testing.T) {
	reg := prometheus.NewRegistry()
	for name, c := range map[string]Config{
		"no URL":              {},
		"no scheme":           {URL: "loki:3100/push"},
		"other scheme":        {URL: "ftp://u:hidden@loki/push"},
		"unreadable":          {URL: "http://u:hidden@[::1/push"},
		"two passwords":       {URL: "http://x", Username: "u", Password: "hidden", PasswordFile: "/f"},
		"password, no user":   {URL: "http://x", PasswordFile: "/f"},
		"basic and bearer":    {URL: "http://x", Username: "u", BearerTokenFile: "/f"},
		"no such token":       {URL: "http://x", BearerTokenFile: filepath.Join(t.TempDir(), "none")},
		"empty token":         {URL: "http://x", BearerTokenFile: writeFile(t, "t", "\n")},
		"token of two lines":  {URL: "http://x", BearerTokenFile: writeFile(t, "t", "hidden\nhidden\n")},
		"no such CA":          {URL: "http://x", TLS: TLS{CAFile: filepath.Join(t.TempDir(), "none")}},
		"CA is no PEM":        {URL: "http://x", TLS: TLS{CAFile: writeFile(t, "ca", "hidden")}},
		"cert without key":    {URL: "http://x", TLS: TLS{CertFile: "/c"}},
		"no such cert":        {URL: "http://x", TLS: TLS{CertFile: "/none", KeyFile: "/none"}},
		"header of our own":   {URL: "http://x", Headers: map[string]string{"content-encoding": "zstd"}},
		"registered a second": {URL: "http://x", Registerer: reg},
	} {
		if c.Registerer != nil {
			if _, err := New(c); err != nil {
				t.Fatal(err)
			}
		}
		cl, err := New(c)
		if err == nil || cl != nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: told a secret: %v", name, err)
		}
	}
}

// authority is a certificate authority of the test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, next: 1}
	a.key = newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue gives a certificate and its key as PEM.
func (a *authority) issue(name string) (certPEM, keyPEM string) {
	a.next++
	key := newKey(a.t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{name},
	}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.DNSNames, tmpl.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func TestTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	caFile := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	serve := func(host string) func(*lokitest.Options) {
		return func(o *lokitest.Options) {
			c, k := ca.issue(host)
			pair, err := tls.X509KeyPair([]byte(c), []byte(k))
			if err != nil {
				t.Fatal(err)
			}
			o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
		}
	}
	files := func(a *authority) (string, string) {
		c, k := a.issue("agent")
		return writeFile(t, "cert.pem", c), writeFile(t, "key.pem", k)
	}
	cert, key := files(ca)
	strangeCert, strangeKey := files(stranger)
	for _, tt := range []struct {
		name     string
		host     string
		tls      TLS
		ok, conf bool
	}{
		{"both sides known", "127.0.0.1", TLS{CAFile: caFile, CertFile: cert, KeyFile: key}, true, false},
		{"another name", "loki.example", TLS{CAFile: caFile, CertFile: cert, KeyFile: key, ServerName: "loki.example"}, true, false},
		{"not verified", "loki.example", TLS{InsecureSkipVerify: true, CertFile: cert, KeyFile: key}, true, false},
		{"unknown authority", "127.0.0.1", TLS{CertFile: cert, KeyFile: key}, false, true},
		{"wrong name", "loki.example", TLS{CAFile: caFile, CertFile: cert, KeyFile: key}, false, true},
		{"no client certificate", "127.0.0.1", TLS{CAFile: caFile}, false, false},
		{"a stranger's certificate", "127.0.0.1", TLS{CAFile: caFile, CertFile: strangeCert, KeyFile: strangeKey}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, serve(tt.host), func(c *Config) { c.TLS = tt.tls })
			b := batchOf(labelled("a"), line(start, "x"))
			out := r.push(b)
			if (out.Err == nil) != tt.ok || out.Config != tt.conf {
				t.Fatalf("outcome %+v", out)
			}
			if !tt.ok {
				r.states(b, entry.PartPending)
			}
		})
	}
	t.Run("renewed client certificate", func(t *testing.T) {
		c, k := stranger.issue("agent")
		certFile, keyFile := writeFile(t, "cert.pem", c), writeFile(t, "key.pem", k)
		r := newRig(t, serve("127.0.0.1"), func(cfg *Config) { cfg.TLS = TLS{CAFile: caFile, CertFile: certFile, KeyFile: keyFile} })
		b := batchOf(labelled("a"), line(start, "x"))
		if out := r.push(b); out.Err == nil {
			t.Fatal("a stranger was let in")
		}
		c, k = ca.issue("agent")
		replaceFile(t, certFile, c)
		replaceFile(t, keyFile, k)
		r.accepted(b, r.push(b))
	})
}
