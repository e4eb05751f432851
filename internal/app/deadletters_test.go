package app

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/deadletter"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

// What the store refused is told apart from what was malformed and never sent.
func TestDeadLetters(t *testing.T) {
	dir := t.TempDir()
	log, err := deadletter.Open(dir, deadletter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &deadLetters{log: log}
	src := &entry.Source{ID: "id", Name: "name", Path: "/log", Stats: &entry.Stats{}, Metadata: []entry.Label{{Name: "container_id", Value: "id"}}}
	for class, text := range []string{"stdout", "stderr", "malformed"} {
		src.Labels[class] = entry.NewLabels(entry.Label{Name: "class", Value: text})
	}
	var b entry.Batch
	b.BeginAt(src, entry.Place{Inode: 5, Offset: 100})
	for i, class := range []entry.Class{entry.ClassMalformed, entry.ClassStderr, entry.ClassMalformed} {
		off := len(b.Text)
		b.Text = append(b.Text, byte('a'+i))
		b.AddAt(int64(i), off, class, entry.FlagRefused, uint32(10*i))
	}
	b.End()
	streamed := &entry.Source{ID: "id", Name: "name", Labels: src.Labels, Metadata: src.Metadata}
	unknown := &entry.Source{ID: "id", Name: "name", Path: "/log", Labels: src.Labels, Metadata: src.Metadata}
	for _, src := range []*entry.Source{streamed, unknown} { // of one that an older agent has spooled no place is known
		b.Begin(src)
		b.AddAt(time.Date(2025, 11, 7, 13, 0, 0, 5e8, time.UTC).UnixNano(), len(b.Text), entry.ClassStdout, entry.FlagRefused, 3)
		b.End()
	}
	if err := d.Append(&b, []entry.Refusal{{Line: 0, Reason: monitors.ReasonMalformed}}); err != nil {
		t.Fatal(err)
	}
	if h := d.health(); h.records != 0 || !h.at.IsZero() {
		t.Errorf("the store is said to have refused what it never got: %+v", h)
	}
	if err := d.Append(&b, []entry.Refusal{
		{Line: 1, Reason: "too old"}, {Line: 2, Reason: "line too long"},
		{Section: 1, Line: 3, Reason: "too old"}, {Section: 2, Line: 4, Reason: "too old"},
	}); err != nil {
		t.Fatal(err)
	}
	if h := d.health(); h.records != 4 || h.at.IsZero() {
		t.Errorf("%+v", h)
	}
	d.CopyMalformed([]monitors.MalformedLine{{Source: src, Place: entry.Place{Inode: 6, Offset: 7}, Raw: []byte{0xff}}})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "dead_letters", "dead_letters.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []deadletter.Record{
		{Kind: deadletter.Malformed, Position: "/log@100", Inode: 5, Raw: []byte("a")},
		{Kind: deadletter.Refused, Stream: "stderr", Position: "/log@110", Inode: 5, Raw: []byte("b")},
		{Kind: deadletter.Refused, Position: "/log@120", Inode: 5, Raw: []byte("c")},
		{Kind: deadletter.Refused, Stream: "stdout", Position: "2025-11-07T13:00:00.5Z#3", Raw: []byte{}},
		{Kind: deadletter.Refused, Stream: "stdout", Raw: []byte{}},
		{Kind: deadletter.Malformed, Position: "/log@7", Inode: 6, Raw: []byte{0xff}},
	}
	classes := []string{"malformed", "stderr", "malformed", "stdout", "stdout", "malformed"}
	lines := bufio.NewScanner(f)
	for i := 0; lines.Scan(); i++ {
		var got deadletter.Record
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil || i >= len(want) {
			t.Fatalf("record %d %s: %v", i, lines.Bytes(), err)
		}
		w := want[i]
		if got.Kind != w.Kind || got.Stream != w.Stream || got.Position != w.Position || got.Inode != w.Inode || string(got.Raw) != string(w.Raw) || got.ContainerID != "id" || got.ContainerName != "name" {
			t.Errorf("record %d is %+v, want %+v", i, got, w)
		}
		if !maps.Equal(got.Labels, map[string]string{"class": classes[i]}) || !maps.Equal(got.Metadata, map[string]string{"container_id": "id"}) || got.Copy != (i == 5) {
			t.Errorf("record %d has labels %v, metadata %v, copy %v", i, got.Labels, got.Metadata, got.Copy)
		}
		want[i].Reason = "seen"
	}
	for i, w := range want {
		if w.Reason != "seen" {
			t.Errorf("record %d is missing", i)
		}
	}
}
