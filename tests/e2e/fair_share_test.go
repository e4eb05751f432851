package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// laneOf gives the lane of a container.
var laneOf = dispatch.New(dispatch.Config{Lanes: lanes}).LaneOf

// laneStore is a log store that accepts everything, each lane no faster than it is
// told, and knows what it had accepted of a lane when a line came.
type laneStore struct {
	url string

	mu    sync.Mutex
	rate  int // bytes of text a second of each lane; 0: any number
	lanes [lanes][]acceptance
	lines map[string][]arrivedLine // by container; line n is at n-1
	wrong []string                 // the first few things that no agent may send
}

// acceptance is a request that was accepted: when, and how many bytes of text its
// lane had brought with it.
type acceptance struct {
	at    time.Time
	bytes int
}

// arrivedLine is when a line was written, and the request of its lane that brought it.
type arrivedLine struct {
	written time.Time
	request int
}

// startLaneStore starts a store that ends with the test.
func startLaneStore(t *testing.T) *laneStore {
	s := &laneStore{lines: make(map[string][]arrivedLine)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL + "/loki/api/v1/push"
	return s
}

// limit sets the rate.
func (s *laneStore) limit(rate int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate = rate
}

// accepted gives how many bytes of text a lane has brought.
func (s *laneStore) accepted(lane int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, bytes := since(s.lanes[lane], time.Time{}, len(s.lanes[lane])-1)
	return bytes
}

// received gives how many lines have come of each container, and what was wrong.
func (s *laneStore) received() (n map[string]int, wrong []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = make(map[string]int)
	for name, all := range s.lines {
		n[name] = len(all)
	}
	return n, s.wrong
}

func (s *laneStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := readPush(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	brought := 0
	for i := range req.Streams {
		for j := range req.Streams[i].Entries {
			brought += len(req.Streams[i].Entries[j].Line)
		}
	}
	s.mu.Lock()
	rate := s.rate
	s.mu.Unlock()
	if rate > 0 {
		select {
		case <-time.After(time.Duration(float64(brought) / float64(rate) * float64(time.Second))):
		case <-r.Context().Done():
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lane := -1
	for i := range req.Streams {
		labels, err := lokitest.ParseLabels(req.Streams[i].Labels)
		name := labels["container_name"]
		switch {
		case err != nil:
			s.complain("%v", err)
			continue
		case lane < 0:
			lane = laneOf(name)
		case lane != laneOf(name):
			s.complain("a request has lines of both lanes: %s", req.Streams[i].Labels)
			continue
		}
		all := s.lines[name]
		for _, e := range req.Streams[i].Entries {
			if !strings.HasPrefix(e.Line, name+" "+strconv.Itoa(len(all)+1)+" ") {
				s.complain("behind line %d of %s comes %.40q", len(all), name, e.Line)
			}
			all = append(all, arrivedLine{written: e.Timestamp, request: len(s.lanes[lane])})
		}
		s.lines[name] = all
	}
	if lane < 0 {
		s.complain("a request has no lines")
		return
	}
	before := 0
	if n := len(s.lanes[lane]); n > 0 {
		before = s.lanes[lane][n-1].bytes
	}
	s.lanes[lane] = append(s.lanes[lane], acceptance{at: time.Now(), bytes: before + brought})
	w.WriteHeader(http.StatusNoContent)
}

// complain notes what is wrong. mu is held.
func (s *laneStore) complain(format string, args ...any) {
	if len(s.wrong) < 5 {
		s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
	}
}

// since gives how many requests of a lane, and how many bytes of text in them, were
// accepted after a time, up to a request and with it.
func since(lane []acceptance, at time.Time, request int) (requests, bytes int) {
	first, _ := slices.BinarySearchFunc(lane, at, func(a acceptance, at time.Time) int { return a.at.Compare(at) })
	if first > request {
		return 0, 0
	}
	bytes = lane[request].bytes
	if first > 0 {
		bytes -= lane[first-1].bytes
	}
	return request + 1 - first, bytes
}

// delays are those of a container's lines that were written within a span of time,
// sorted: the time from written to accepted, and the requests and bytes that their
// lane brought, each line's own request among them, from when the agent had to look for
// it.
type delays struct {
	late            []time.Duration
	requests, bytes []int
}

// delays gives those of some containers of one lane.
func (s *laneStore) delays(containers []output, from, to time.Time, look time.Duration) (d delays) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range containers {
		lane := s.lanes[laneOf(c.name)]
		for _, l := range s.lines[c.name] {
			if l.written.Before(from) || !l.written.Before(to) {
				continue
			}
			requests, bytes := since(lane, l.written.Add(look), l.request)
			d.late = append(d.late, lane[l.request].at.Sub(l.written))
			d.requests, d.bytes = append(d.requests, requests), append(d.bytes, bytes)
		}
	}
	slices.Sort(d.late)
	slices.Sort(d.requests)
	slices.Sort(d.bytes)
	return d
}

// TestFairShare: a container writes as fast as the engine takes it and has a backlog
// that the store is long busy with. Others in its lane wait for no more of it than the
// lane has in memory; those in the other lane do not wait. That is counted in what the
// store has accepted, not in time, which a busy machine makes long.
func TestFairShare(t *testing.T) {
	const (
		size    = 8000
		most    = 100_000   // lines of the loud one: 0.8 GB
		backlog = 128 << 20 // when the agent starts
		behind  = 32 << 20  // the loud one is behind by so much, or the test proves nothing

		// What the store takes of a lane at first and then, bytes a second; at last all.
		quick, quickFor = 48 << 20, 1500 * time.Millisecond
		slow, slowFor   = 10 << 20, 5 * time.Second

		// For so long a log that is being written to need not be looked at: the default of
		// batch_wait, and what coarse timers come late.
		look = 127 * time.Millisecond
		// In front of a line are then the batch under way and one behind it, and it comes
		// with its own; each is longer by what is read of a log at a time.
		quantum = 512 << 10 // readBytes of internal/monitors
		bound   = 3 * (dispatch.DefaultBatchBytes + quantum)
		// A busy machine lets the agent look later, and so much passes meanwhile.
		passing = 24 << 20
	)
	w := &world{t: t, d: sharedEngine(t)}
	t.Cleanup(w.removeContainers)
	s := startLaneStore(t)

	loud := output{name: "loud", lines: most, size: size}
	lane := laneOf(loud.name)
	began := time.Now()
	all, ids := []output{loud}, []string{w.run(rotated(loud.spec(), "100m", "20", false))} // all is kept
	written := func() (sum int64) {
		for _, f := range logFiles(t, w.d, ids[0]) {
			if st, err := os.Stat(f); err == nil { // else it is being rotated
				sum += st.Size()
			}
		}
		return sum
	}
	harness.Eventually(t, 60*time.Second, "a backlog", func() bool { return written() >= backlog })
	t.Logf("without the agent the loud one writes %.0f MB/s", float64(written())/1e6/time.Since(began).Seconds())
	var near, far []output // in the loud one's lane, in the other
	for i := 0; len(near) < 3 || len(far) < 1; i++ {
		o := output{name: fmt.Sprintf("quiet%d", i), size: 100}
		switch {
		case laneOf(o.name) == lane && len(near) < 3:
			near = append(near, o)
		case laneOf(o.name) != lane && len(far) < 1:
			far = append(far, o)
		default:
			continue
		}
		all, ids = append(all, o), append(ids, w.run(o.spec("-rate", "15")))
	}
	s.limit(quick)
	a := w.agentTo(s.url, "", "")
	a.Start()

	type phase struct {
		name     string
		bound    int
		from, to time.Time
	}
	var phases []phase
	during := func(name string, bound int, f func()) {
		t.Helper()
		p, had, wrote := phase{name: name, bound: bound, from: time.Now()}, s.accepted(lane), written()
		f()
		p.to = time.Now()
		phases = append(phases, p)
		took := p.to.Sub(p.from).Seconds()
		t.Logf("%s, %.1f s: the loud one writes %.0f MB/s, the store takes %.0f MB/s of its lane", name, took,
			float64(written()-wrote)/1e6/took, float64(s.accepted(lane)-had)/1e6/took)
	}
	isBehind := func() {
		t.Helper()
		if n := a.Metrics()[metricUnread]; n < behind && !w.cut() {
			t.Errorf("only %v bytes of the loud one are unread: the test proves little", n)
		}
	}
	during("quick store", bound+passing, func() {
		<-time.After(quickFor)
		isBehind()
	})
	s.limit(slow)
	during("slow store", bound, func() {
		<-time.After(slowFor)
		isBehind()
	})
	during("catching up", bound+passing, func() {
		s.limit(0)
		w.each(ids[:1], w.d.TermNow)
		harness.Eventually(t, 40*time.Second, "the backlog is read", func() bool { return a.Metrics()[metricUnread] < quantum })
	})
	w.each(ids[1:], w.d.TermNow)
	for _, id := range ids {
		w.d.Wait(t, id, 20*time.Second)
	}
	w.balanced(a)

	cut := w.cut() // what was sent came twice, and lines go by way of the spool
	come, wrong := s.received()
	for _, x := range wrong {
		if !cut {
			t.Error(x)
		}
	}
	for i, o := range all {
		if got, want := come[o.name], lastWritten(t, w.d.LogPath(ids[i])); got < want || got > want && !cut {
			t.Errorf("%s: %d lines have come, %d were written", o.name, got, want)
		}
	}
	for _, p := range phases {
		for where, of := range map[string][]output{"the same lane": near, "the other lane": far} {
			d := s.delays(of, p.from, p.to, look)
			if len(d.late) == 0 {
				t.Errorf("%s: no line in %s", p.name, where)
				continue
			}
			requests, bytes := d.requests[len(d.requests)-1], d.bytes[len(d.bytes)-1]
			t.Logf("%s, %s: %d lines, late p50 %v p99 %v max %v; with them p50 %.2f MB, at most %.2f MB in %d requests", p.name, where, len(d.late),
				quantile(d.late, 0.5).Round(time.Millisecond), quantile(d.late, 0.99).Round(time.Millisecond), quantile(d.late, 1).Round(time.Millisecond),
				float64(d.bytes[len(d.bytes)/2])/1e6, float64(bytes)/1e6, requests)
			switch {
			case cut:
				t.Log("the store has not answered within a second, so busy is the machine: the lines go by way of the spool, in the order of their lane")
			case bytes > p.bound:
				t.Errorf("%s: a line in %s came with %d bytes of its lane, more than %d", p.name, where, bytes, p.bound)
			case laneOf(of[0].name) != lane && requests > 3: // one under way, its own, and a late look
				t.Errorf("%s: a line in %s came with %d requests of its lane", p.name, where, requests)
			}
		}
	}
}

func TestSince(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	lane := []acceptance{{at(1), 10}, {at(2), 30}, {at(4), 70}}
	for _, c := range []struct{ at, request, requests, bytes int }{
		{0, 0, 1, 10}, {0, 2, 3, 70}, {2, 2, 2, 60}, {3, 2, 1, 40}, {3, 1, 0, 0}, {5, 2, 0, 0}, {0, -1, 0, 0},
	} {
		if requests, bytes := since(lane, at(c.at), c.request); requests != c.requests || bytes != c.bytes {
			t.Errorf("since %d up to request %d: %d requests of %d bytes, want %d of %d", c.at, c.request, requests, bytes, c.requests, c.bytes)
		}
	}
}
