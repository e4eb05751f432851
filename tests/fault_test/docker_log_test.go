package main

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// entries makes entries of Docker's for lines of ours.
func entries(numbers ...int) string {
	var b strings.Builder
	for _, n := range numbers {
		b.WriteString(entryOf(ours.line(n)+"\n", streamNames[ours.stream(n)]))
	}
	return b.String()
}

func entryOf(log, stream string) string {
	text, err := json.Marshal(struct {
		Log    string `json:"log"`
		Stream string `json:"stream"`
		Time   string `json:"time"`
	}{log, stream, "2026-01-02T03:04:05Z"})
	if err != nil {
		panic(err)
	}
	return string(text) + "\n"
}

func TestHoles(t *testing.T) {
	from := func(first, last int) (all []int) {
		for n := first; n <= last; n++ {
			all = append(all, n)
		}
		return all
	}
	cut := strings.TrimSuffix(entries(4), "\"}\n")
	for _, c := range []struct {
		what  string
		text  string
		final bool
		want  []int
		end   int
	}{
		{"empty", "", true, nil, 0},
		{"whole", entries(from(1, 9)...), true, nil, 9},
		{"a hole", entries(1, 2, 5, 6, 9), true, []int{3, 4, 7, 8}, 9},
		{"running: the other stream may be behind", entries(1, 2, 4, 5, 7), false, nil, 7},
		{"ended: it is not", entries(1, 2, 4, 5, 7), true, []int{3, 6}, 7},
		{"running: a hole within a stream", entries(1, 2, 3, 5, 6), false, []int{4}, 6},
		{"rotation has taken the first", entries(append(from(100, 200), 202)...), true, []int{201}, 202},
		{"of what was overtaken at the cut nothing can be said", entries(append([]int{101}, from(103, 200)...)...), true, nil, 200},
		{"cut, and the next glued on", entries(1, 2, 3) + cut + entries(5, 6), true, []int{4}, 6},
		{"cut at the end", entries(1, 2, 3) + cut, true, nil, 3},
		{"a line in two pieces", entries(1, 2, 3) + entryOf(ours.line(4)[:6], "stdout") + entryOf(ours.line(4)[6:]+"\n", "stdout") + entries(5), true, nil, 5},
		{"a line whose second piece is missing", entries(1, 2, 3) + entryOf(ours.line(4)[:6], "stdout") + entries(5), true, []int{4}, 5},
	} {
		w := new(written)
		w.parseEntries(&ours, []byte(c.text))
		if got := w.holes(&ours, c.final); !slices.Equal(got, c.want) || w.end() != c.end {
			t.Errorf("%s: holes %v up to %d, want %v up to %d", c.what, got, w.end(), c.want, c.end)
		}
	}
}

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	write := func(suffix, text string) {
		t.Helper()
		f, err := os.Create(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if !strings.HasSuffix(suffix, ".gz") {
			if _, err := f.WriteString(text); err != nil {
				t.Fatal(err)
			}
			return
		}
		z := gzip.NewWriter(f)
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write("", entries(9))
	write(".1", entries(7, 8))
	write(".1.gz", "not finished")
	write(".2.gz", entries(5, 6))
	write(".10.gz", entries(1, 2, 3, 4))
	write(".2.gz.tmp", "of the engine's own readers")
	texts, err := readChain(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(slices.Concat(texts...)), entries(1, 2, 3, 4, 5, 6, 7, 8, 9); got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	w, err := readLog(&ours, path)
	if err != nil || w.end() != 9 || w.have.count() != 9 || w.torn != 0 {
		t.Errorf("%+v, %v", w, err)
	}
}
