package engine

import (
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/bench/internal/genlog"
	"github.com/log-capturer/log_capturer/internal/docker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestProductUnderstands asks as the product does, with the product's client.
func TestProductUnderstands(t *testing.T) {
	const n = 3
	root, started := t.TempDir(), time.Now().Add(-time.Hour)
	e, err := New(root, n, started)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(root, "d.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { _ = srv.Close(); <-done }()

	c, err := docker.New("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	info, err := c.Info(t.Context())
	if err != nil || info.RootDir != root || info.LoggingDriver != "json-file" {
		t.Fatalf("%+v, %v", info, err)
	}
	all, err := c.List(t.Context())
	if err != nil || len(all) != n {
		t.Fatalf("%d containers, %v", len(all), err)
	}
	for i, s := range all {
		got, err := c.Inspect(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != s.ID || got.Name != genlog.ContainerName(i) || got.LogPath != genlog.LogPath(root, i) ||
			got.Driver != "json-file" || !got.Running || !got.StartedAt.Equal(started) {
			t.Errorf("%+v", got)
		}
	}
	if _, err := c.Inspect(t.Context(), "none"); err == nil {
		t.Error("a container that is not there")
	}
}
