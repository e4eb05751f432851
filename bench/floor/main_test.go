package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"

	"github.com/log-capturer/log_capturer/bench/internal/genlog"
)

// TestLinesArrive holds what is pushed against what was written.
func TestLinesArrive(t *testing.T) {
	const lines = 3000
	root := t.TempDir()
	path := genlog.LogPath(root, 0)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	g := genlog.New(1)
	var text []byte
	start := time.Date(2025, 11, 7, 23, 59, 59, 0, time.UTC) // midnight comes
	for n := range lines {
		text = g.Append(text, 0, n, start.Add(time.Duration(n)*time.Millisecond))
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(map[int]time.Time)
	failed := make(chan error, 1)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		body, err := io.ReadAll(r.Body)
		if err == nil {
			body, err = snappy.Decode(nil, body)
		}
		var req push.PushRequest
		if err == nil {
			err = req.Unmarshal(body)
		}
		if err != nil {
			failed <- err
			cancel()
			return
		}
		for _, s := range req.Streams {
			for _, e := range s.Entries {
				id, ok := genlog.Parse([]byte(e.Line))
				switch {
				case ok && (id.Whole || genlog.Long(id.Number)):
					got[id.Number] = e.Timestamp
				case !genlog.Continuation([]byte(e.Line)):
					failed <- fmt.Errorf("not what was written: %q", e.Line)
					cancel()
					return
				}
			}
		}
		if len(got) == lines {
			cancel()
		}
	}))
	defer store.Close()
	if err := run(ctx, filepath.Join(root, "containers"), store.URL); err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	for n := range lines {
		if want := start.Add(time.Duration(n) * time.Millisecond); !got[n].Equal(want) {
			t.Fatalf("line %d came with the time %v, not %v", n, got[n], want)
		}
	}
}
