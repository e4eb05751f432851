package loki

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMayShare(t *testing.T) {
	now := time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)
	sent := now.UnixNano()
	good := traveller{size: 100, proven: now.Add(-time.Minute), sent: sent, oldest: sent}
	tests := []struct {
		name   string
		change func(*traveller)
		want   bool
	}{
		{"proven and small", func(*traveller) {}, true},
		{"never accepted alone", func(t *traveller) { t.proven = time.Time{} }, false},
		{"at the size", func(t *traveller) { t.size = togetherBytes }, true},
		{"too large", func(t *traveller) { t.size = togetherBytes + 1 }, false},
		{"30 min ago", func(t *traveller) { t.proven = now.Add(-togetherFor) }, true},
		{"longer ago", func(t *traveller) { t.proven = now.Add(-togetherFor - 1) }, false},
		{"due early", func(t *traveller) { t.proven, t.spread = now.Add(-25*time.Minute), 6*time.Minute }, false},
		{"30 min behind", func(t *traveller) { t.oldest = sent - int64(togetherBehind) }, true},
		{"further behind", func(t *traveller) { t.oldest = sent - int64(togetherBehind) - 1 }, false},
		{"falls by 30 min", func(t *traveller) { t.fall = int64(togetherBehind) }, true},
		{"falls further", func(t *traveller) { t.fall = int64(togetherBehind) + 1 }, false},
		{"newer", func(t *traveller) { t.oldest = sent + int64(24*time.Hour) }, true},
		{"accepted in the future: a clock set back", func(t *traveller) { t.proven = now.Add(time.Second) }, false},
	}
	for _, tt := range tests {
		v := good
		tt.change(&v)
		if got := mayShare(v, now); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestPlan(t *testing.T) {
	now := time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 200_000).Draw(rt, "limit")
		var ts []traveller
		for range rapid.IntRange(0, 30).Draw(rt, "n") {
			v := traveller{size: rapid.IntRange(1, 100_000).Draw(rt, "size"), sent: 1e18, oldest: 1e18}
			if rapid.Bool().Draw(rt, "proven") {
				v.proven = now
			}
			ts = append(ts, v)
		}
		order, ends := plan(ts, now, limit, nil, nil)
		seen := slices.Clone(order)
		slices.Sort(seen)
		if len(seen) != len(ts) || len(slices.Compact(seen)) != len(ts) {
			rt.Fatalf("streams %v of %d", order, len(ts))
		}
		at := int32(0)
		for _, end := range ends {
			group := order[at:end]
			if len(group) == 0 {
				rt.Fatal("an empty push")
			}
			size := 0
			for _, id := range group {
				size += ts[id].size
				if len(group) > 1 && !mayShare(ts[id], now) {
					rt.Fatal("a stream that must be alone is not")
				}
			}
			if len(group) > 1 && size > limit {
				rt.Fatalf("%d bytes together, limit %d", size, limit)
			}
			at = end
		}
		if int(at) != len(order) {
			rt.Fatal("streams behind the last push")
		}
	})
}

func TestStreamTableIsBounded(t *testing.T) {
	var st streamTable
	now := time.Now()
	for i := range 3 * maxStreams {
		st.accepted(fmt.Sprint(i), 1, true, now)
		if len(st.m) > maxStreams {
			t.Fatalf("%d streams remembered", len(st.m))
		}
	}
	if s := st.m[fmt.Sprint(3*maxStreams-1)]; s == nil || !s.proven.Equal(now) {
		t.Fatal("the newest stream is forgotten")
	}
	// An hour later one new stream sweeps the idle ones.
	later := now.Add(forgetAfter + time.Second)
	st.get("new", later)
	if len(st.m) != 1 {
		t.Fatalf("%d streams remembered, want 1", len(st.m))
	}
	lo, hi := spreadFor, time.Duration(0)
	for i := range 100 {
		s := st.get(fmt.Sprint("s", i), later).spread
		lo, hi = min(lo, s), max(hi, s)
	}
	if lo < 0 || hi >= spreadFor || hi-lo < spreadFor/2 {
		t.Fatalf("spread from %s to %s", lo, hi)
	}
}
