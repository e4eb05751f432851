package loki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http/httpguts"
)

// Config is what a Client needs to know. The zero values of BatchBytes, Timeout
// and UserAgent stand for the defaults.
type Config struct {
	// URL is the push API's, used as it is.
	URL string
	// TenantID is sent as X-Scope-OrgID when not empty.
	TenantID string
	// Username and Password (or PasswordFile) make basic authentication, when
	// Username is not empty. BearerTokenFile excludes them. Files are read
	// again when they change.
	Username, Password, PasswordFile, BearerTokenFile string
	TLS                                               TLS
	// Headers are sent with every request. What frames a request, and its Host, are
	// not among them.
	Headers map[string]string
	// StructuredMetadata sends Source.Metadata and partial="true" with lines.
	StructuredMetadata bool
	// BatchBytes is the most that a request has, uncompressed; default 1 MiB.
	BatchBytes int
	// Timeout bounds a request from connecting to the answer's last byte;
	// default 10 s.
	Timeout   time.Duration
	UserAgent string

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// TLS says how an https endpoint is trusted and how we identify ourselves.
type TLS struct {
	CAFile             string // PEM; empty: the system's
	CertFile, KeyFile  string // PEM, both or none; read again for each new connection
	ServerName         string // expected in the certificate; empty: the URL's host
	InsecureSkipVerify bool
}

const (
	defaultBatchBytes = 1 << 20
	defaultTimeout    = 10 * time.Second
	defaultUserAgent  = "log_capturer"
)

// endpoint parses the URL. Credentials in it are taken out of it.
func endpoint(c *Config) (*url.URL, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		// The error of url.Parse repeats the whole URL.
		return nil, errors.New("the URL cannot be parsed; it must look like http://loki:3100/loki/api/v1/push")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the URL %q must begin with http:// or https:// and name a host", withoutSecrets(c.URL))
	}
	if u.User != nil {
		if c.Username == "" && c.BearerTokenFile == "" {
			c.Username = u.User.Username()
			c.Password, _ = u.User.Password()
		}
		u.User = nil
	}
	u.Fragment = ""
	return u, nil
}

// withoutSecrets gives a URL without user, password and query.
func withoutSecrets(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(unreadable URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

func tlsConfig(t TLS) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify, //nolint:gosec // the operator's choice, off by default
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s has no certificate in PEM form", t.CAFile)
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errors.New("cert_file and key_file must be given together")
	}
	if t.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			return nil, fmt.Errorf("load cert_file and key_file: %w", err)
		}
		// Read for each new connection, so that a renewed certificate is used.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("load cert_file and key_file: %w", err)
			}
			return &cert, nil
		}
	}
	return c, nil
}

// header gives the headers that every request has.
func header(c *Config) (http.Header, error) {
	h := http.Header{}
	for k, v := range c.Headers {
		switch http.CanonicalHeaderKey(k) {
		case "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Trailer", "Transfer-Encoding", "Upgrade":
			return nil, fmt.Errorf("headers: %s is set by the agent itself", k)
		}
		h.Set(k, v)
	}
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("User-Agent", c.UserAgent)
	if c.TenantID != "" {
		h.Set("X-Scope-OrgID", c.TenantID)
	}
	for k, v := range h {
		if !httpguts.ValidHeaderFieldName(k) {
			return nil, fmt.Errorf("headers: %q is not the name of a header", k)
		}
		if strings.ContainsFunc(v[0], isControl) {
			return nil, fmt.Errorf("headers: the value of %s has a control character or a line end", k)
		}
	}
	return h, nil
}

// isControl tells what no header may have (RFC 9110, 5.5). The configuration's check
// goes by the same.
func isControl(r rune) bool { return r < ' ' || r == 0x7f }
