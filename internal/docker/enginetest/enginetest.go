// Package enginetest serves a Docker API that a test plays.
package enginetest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"time"
)

// TB is what is used of a testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(f func())
	Context() context.Context
}

// Serve has a handler answer on a socket of its own until the test ends. It gives a
// directory for the test, with the socket in it, and the engine's address as a client
// takes it.
func Serve(tb TB, h http.Handler) (dir, host string) {
	tb.Helper()
	dir, err := os.MkdirTemp("", "lc") // a socket's path may have 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	var lc net.ListenConfig
	l, err := lc.Listen(tb.Context(), "unix", dir+"/d.sock")
	if err != nil {
		tb.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}}
	s.Start()
	tb.Cleanup(s.Close)
	return dir, "unix://" + dir + "/d.sock"
}
