package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReload(t *testing.T) {
	for _, c := range []struct {
		name, remote, origin string
		fault                error
		code, calls          int
		says                 string
	}{
		{"from this machine", "127.0.0.1:4711", "", nil, http.StatusAccepted, 1, "taken over"},
		{"from this machine, IPv6", "[::1]:4711", "", nil, http.StatusAccepted, 1, "taken over"},
		{"from this machine, mapped", "[::ffff:127.0.0.1]:4711", "", nil, http.StatusAccepted, 1, "taken over"},
		{"with faults", "127.0.0.1:4711", "", errors.New("f:1: host: is a list"), http.StatusBadRequest, 1, "f:1: host: is a list"},
		{"from another machine", "10.1.2.3:4711", "", nil, http.StatusForbidden, 0, "only from this machine"},
		{"from nowhere", "", "", nil, http.StatusForbidden, 0, "only from this machine"},
		{"from a web page", "127.0.0.1:4711", "https://example.org", nil, http.StatusForbidden, 0, "web page"},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			o := options()
			o.Reload = func(context.Context) error { calls++; return c.fault }
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/-/reload", nil)
			r.RemoteAddr, r.Host = c.remote, "127.0.0.1:8401"
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			w := httptest.NewRecorder()
			handler(o).ServeHTTP(w, r)
			if w.Code != c.code || calls != c.calls || !strings.Contains(w.Body.String(), c.says) {
				t.Errorf("%d %q, %d calls; want %d %q, %d", w.Code, w.Body, calls, c.code, c.says, c.calls)
			}
		})
	}
	w := httptest.NewRecorder()
	handler(options()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/-/reload", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}
