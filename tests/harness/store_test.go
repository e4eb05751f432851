package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// push sends lines to the store in the JSON form of Loki's protocol.
func push(t *testing.T, s *Store, from time.Time, text ...string) {
	t.Helper()
	var body bytes.Buffer
	body.WriteString(`{"streams":[{"stream":{"job":"test","container_name":"c"},"values":[`)
	for i, l := range text {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `["%d",%q]`, from.Add(time.Duration(i)).UnixNano(), l)
	}
	body.WriteString(`]}]}`)
	resp, err := s.http.Post(s.PushURL(), "application/json", &body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("push: %s", resp.Status)
	}
}

func TestStore(t *testing.T) {
	s := StartStore(t)
	if n := s.Count(t, `*`); n != 0 {
		t.Errorf("a new store has %d lines", n)
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	push(t, s, at, "one", `{"two":"is JSON"}`)
	rows := s.Query(t, `{job="test"} | sort by (_time)`)
	if len(rows) != 2 || rows[0]["_msg"] != "one" || rows[1]["_msg"] != `{"two":"is JSON"}` || rows[0]["container_name"] != "c" {
		t.Fatalf("query gave %v", rows)
	}
	if got, err := time.Parse(time.RFC3339Nano, rows[1]["_time"]); err != nil || !got.Equal(at.Add(1)) {
		t.Errorf("time %s, want %v", rows[1]["_time"], at.Add(1))
	}
	s.Stop()
	if resp, err := s.http.Get(s.URL()); err == nil {
		_ = resp.Body.Close()
		t.Error("a stopped store answers")
	}
	s.Start()
	push(t, s, at.Add(time.Second), "three")
	if n := s.Count(t, `{job="test"}`); n != 3 {
		t.Errorf("%d lines after the restart, want 3", n)
	}
	s.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := s.http.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen store gives %v, %v", resp, err)
	}
	cancel()
	s.Thaw()
	s.Kill()
	s.Start() // at the same address; what the stopped store had is on its disk
	if n := s.Count(t, `{job="test"}`); n < 2 {
		t.Errorf("%d lines after the kill, want at least 2", n)
	}
}
