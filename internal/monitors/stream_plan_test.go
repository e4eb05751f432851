package monitors

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sec is a time of the tests of plans; now is sec(100).
func sec(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }

// viewsOf reads views written as "id what ...", one a line, where what is run,
// follow, turning, unread, stopped, or read=, turn= or retry= with a second.
func viewsOf(t *testing.T, text string) (views []streamView) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		v := streamView{id: words[0]}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			var n int
			if value != "" {
				if _, err := fmt.Sscan(value, &n); err != nil {
					t.Fatal(err)
				}
			}
			switch key {
			case "run":
				v.running = true
			case "follow":
				v.following = true
			case "turning":
				v.turning = true
			case "unread":
				v.unread = true
			case "stopped":
				v.stopped = true
			case "read":
				v.readAt = sec(n)
			case "turn":
				v.turnAt = sec(n)
			case "retry":
				v.retryAt = sec(n)
			default:
				t.Fatalf("what is %q?", w)
			}
		}
		views = append(views, v)
	}
	return views
}

func (p streamPlan) String() string {
	s := fmt.Sprintf("follow %v turn %v stop %v", p.follow, p.turn, p.stop)
	if !p.next.IsZero() {
		s += fmt.Sprintf(" next %v", p.next.Sub(t0).Seconds())
	}
	return s
}

func TestPlanStreams(t *testing.T) {
	for name, tt := range map[string]struct {
		limit int
		views string
		want  string
	}{
		"nothing":                                        {1, ``, "follow [] turn [] stop []"},
		"one of one":                                     {1, `a run`, "follow [a] turn [] stop []"},
		"read to its end":                                {1, `a read=50`, "follow [] turn [] stop []"},
		"one exited":                                     {1, `a unread`, "follow [] turn [a] stop []"},
		"all fit":                                        {3, "a run\nb run\nc run", "follow [a b c] turn [] stop []"},
		"all fit, and room":                              {3, "a run\nb run\nc unread", "follow [a b] turn [c] stop []"},
		"exited ones in free ones":                       {4, "a run follow\nb unread read=3\nc unread read=2\nd unread read=1\ne unread", "follow [] turn [e d c] stop []"},
		"an exited one's turn goes on":                   {2, "a run\nb unread turning turn=95\nc unread", "follow [a] turn [] stop []"},
		"an exited follower is a turn":                   {3, "a run follow\nb follow unread\nc unread\nd unread", "follow [] turn [c] stop []"},
		"turns of exited ones hold a follower up":        {2, "a run\nb unread turning\nc unread turning", "follow [] turn [] stop []"},
		"room for one turn is missing":                   {2, "a run\nb run\nc unread read=1", "follow [a] turn [b] stop []"},
		"and the turn goes to who has waited longest":    {2, "a run read=1\nb run read=3\nc unread read=2", "follow [a] turn [c] stop []"},
		"limit 1 is turns only":                          {1, "a run read=2\nb run read=1", "follow [] turn [b] stop []"},
		"limit 1, and a follower from when it was alone": {1, "a run follow\nb run", "follow [] turn [b] stop [a]"},
		"limit 1, a follower and nobody to take turns":   {1, "a run follow\nb run retry=105", "follow [] turn [] stop [] next 105"},
		"a fifth is for turns": {10, "a run\nb run\nc run\nd run\ne run\nf run\ng run\nh run\ni run\nj run\nk run\nl run",
			"follow [a b c d e f g h] turn [i j] stop []"},
		"only as many followers stop as there are turns": {5, "a run follow read=5\nb run follow read=4\nc run follow read=3\nd run follow read=2\ne run follow read=1\nf run",
			"follow [] turn [f] stop [a]"},
		"down to the slots of followers":             {5, "a run follow\nb run follow\nc run follow\nd run follow\ne run follow\nf run\ng run", "follow [] turn [f] stop [e]"},
		"more than the limit is open":                {5, "a run follow\nb run follow\nc run follow\nd run follow\ne run follow\nf run follow", "follow [] turn [] stop [f]"},
		"more than the limit is open, and turns":     {2, "a run follow turn=1\nb run turning turn=2\nc run turning turn=3\nd unread turning turn=4", "follow [] turn [] stop [d c]"},
		"one that has been read needs no room":       {2, "a run\nb run\nc read=50 turn=50", "follow [a b] turn [] stop []"},
		"who follows goes on":                        {2, "a run follow read=99\nb run read=1 turn=95\nc run read=2", "follow [] turn [c] stop []"},
		"a free slot goes to who has waited longest": {3, "a run follow\nb run read=3\nc run read=1\nd run read=2", "follow [c] turn [d] stop []"},
		"turns hold more than their slots":           {3, "a run turning\nb run turning\nc run turning\nd run", "follow [] turn [] stop []"},
		"one that has two ways takes the better":     {2, "a run\nb run turning turn=99\nc run", "follow [a] turn [] stop []"},
		"too early":                                  {2, "a run follow\nb run read=95 turn=91\nc run read=96 turn=95", "follow [] turn [] stop [] next 101"},
		"just in time":                               {2, "a run follow\nb run read=95 turn=90\nc run read=96 turn=95", "follow [] turn [b] stop []"},
		"too early after an exit":                    {2, "a unread read=93 turn=92", "follow [] turn [] stop [] next 102"},
		"following needs no pause":                   {2, "a run read=95 turn=94", "follow [a] turn [] stop []"},
		"after an error":                             {2, "a run retry=103\nb unread retry=102", "follow [] turn [] stop [] next 102"},
		"an error and a turn":                        {2, "a run follow\nb run turn=95 retry=102\nc run turn=93 retry=107", "follow [] turn [] stop [] next 105"},
		"an error that is over":                      {2, "a run retry=100\nb unread retry=99", "follow [a] turn [b] stop []"},
		"one in error keeps its slot":                {3, "a run retry=103\nb run follow\nc unread\nd unread", "follow [] turn [c] stop [] next 103"},
		"one in error is overtaken":                  {2, "a run retry=103\nb run\nc run read=1", "follow [b] turn [c] stop []"},
		"turns that fail go to the back":             {2, "a run follow\nb run read=1 turn=85\nc run read=80 turn=79", "follow [] turn [c] stop []"},
		"stopped":                                    {3, "b run stopped follow\na stopped turning\nc stopped run\nd unread stopped\ne run", "follow [e] turn [] stop [a b]"},
		"stopped ones make room":                     {2, "a run stopped follow\nb run\nc run", "follow [b c] turn [] stop [a]"},
		"restarted before its turn ended":            {2, "a run turning\nb run follow", "follow [] turn [] stop []"},
		"no slot for what is due later":              {2, "a run follow\nb run turning turn=99\nc run read=95 turn=94", "follow [] turn [] stop []"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := planStreams(viewsOf(t, tt.views), tt.limit, sec(100)).String(); got != tt.want {
				t.Errorf("%s\ninstead of %s", got, tt.want)
			}
		})
	}
}

// TestPlanStreamsAny holds a plan for any state there can be against what the
// rules say of it.
func TestPlanStreamsAny(t *testing.T) {
	now := sec(100)
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(rt, "limit")
		at := func(from, to int) time.Time {
			if n := rapid.IntRange(from-1, to).Draw(rt, "time"); n >= from {
				return sec(n)
			}
			return time.Time{}
		}
		var views []streamView
		byID := make(map[string]streamView)
		for i := range rapid.IntRange(0, 40).Draw(rt, "containers") {
			v := streamView{
				id:      fmt.Sprintf("c%02d", i),
				running: rapid.Bool().Draw(rt, "running"),
				stopped: rapid.IntRange(0, 9).Draw(rt, "stopped") == 0,
				readAt:  at(70, 100), turnAt: at(80, 100), retryAt: at(97, 103),
			}
			switch rapid.IntRange(0, 4).Draw(rt, "connection") {
			case 0:
				v.following = true
			case 1:
				v.turning = true
			}
			v.unread = !v.running && rapid.Bool().Draw(rt, "unread")
			views = append(views, v)
			byID[v.id] = v
		}
		plan := planStreams(views, limit, now)

		shuffled := slices.Clone(views)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "shuffle"), 0)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		if again := planStreams(shuffled, limit, now); !reflect.DeepEqual(again, plan) {
			rt.Fatalf("%v, in another order %v", plan, again)
		}

		named := make(map[string]bool)
		for _, id := range slices.Concat(plan.follow, plan.turn, plan.stop) {
			if named[id] {
				rt.Fatalf("%s is named twice: %v", id, plan)
			}
			named[id] = true
		}
		since := func(v streamView) time.Time {
			if v.turnAt.After(v.readAt) {
				return v.turnAt
			}
			return v.readAt
		}
		// What there is, counted by the rules.
		running, unread, following, turning := 0, 0, 0, 0
		for _, v := range views {
			switch {
			case v.stopped:
				if (v.following || v.turning) != named[v.id] {
					rt.Fatalf("%s must not be read: %v", v.id, plan)
				}
				continue
			case v.running:
				running++
			case v.unread:
				unread = 1
			}
			switch {
			case v.running && v.following:
				following++
			case v.following || v.turning:
				turning++
			}
		}
		fit := running+unread <= limit
		turnSlots := max(1, limit/5)
		if fit {
			turnSlots = limit - running
		}
		stopF, stopT := 0, 0
		var leastStopped, mostKept time.Time
		for _, id := range plan.stop {
			v := byID[id]
			switch {
			case !v.following && !v.turning:
				rt.Fatalf("%s has no connection to stop: %v", id, plan)
			case v.stopped:
			case v.running && v.following:
				stopF++
				if stopF == 1 || since(v).Before(leastStopped) {
					leastStopped = since(v)
				}
			default:
				stopT++
			}
		}
		for _, v := range views {
			if v.running && v.following && !v.stopped && !named[v.id] && since(v).After(mostKept) {
				mostKept = since(v)
			}
		}
		if stopF > 0 && mostKept.After(leastStopped) {
			rt.Fatalf("one that was read at %v is stopped, another at %v is not: %v", leastStopped, mostKept, plan)
		}
		followers, turns := following-stopF+len(plan.follow), turning-stopT+len(plan.turn)
		switch {
		case followers+turns > limit:
			rt.Fatalf("%d connections: %v", followers+turns, plan)
		case stopF+stopT > 0 && followers+turns < limit:
			rt.Fatalf("more are stopped than need be: %v", plan)
		case stopF > 0 && followers < limit-turnSlots:
			rt.Fatalf("only %d followers are left: %v", followers, plan)
		case stopF > 0 && fit && following+turning <= limit:
			rt.Fatalf("followers are stopped though all fit: %v", plan)
		case stopF > 0 && len(plan.follow) > 0:
			rt.Fatalf("followers are exchanged: %v", plan)
		case stopT > 0 && following+turning <= limit:
			rt.Fatalf("turns are stopped: %v", plan)
		case len(plan.follow) > 0 && followers > limit-turnSlots:
			rt.Fatalf("%d followers: %v", followers, plan)
		case len(plan.turn) > 0 && turns > turnSlots:
			rt.Fatalf("%d turns: %v", turns, plan)
		}
		for _, id := range plan.follow {
			if v := byID[id]; v.stopped || !v.running || v.following || v.turning || v.retryAt.After(now) {
				rt.Fatalf("%+v cannot be followed: %v", v, plan)
			}
		}
		mayTurn := func(v streamView) bool {
			return !v.stopped && (v.unread || v.running && !fit) && !v.following && !v.turning
		}
		ready := func(v streamView) bool {
			return !v.retryAt.After(now) && (v.turnAt.IsZero() || now.Sub(v.turnAt) >= 10*time.Second)
		}
		for _, id := range plan.turn {
			if v := byID[id]; !mayTurn(v) || !ready(v) {
				rt.Fatalf("%+v cannot have a turn: %v", v, plan)
			}
		}
		// Who waits still, and until when.
		var next time.Time
		soonest := func(at time.Time) {
			if at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		for _, v := range views {
			if named[v.id] || v.stopped || v.following || v.turning {
				continue
			}
			if v.running && followers < limit-turnSlots {
				if !v.retryAt.After(now) && followers+turns < limit {
					rt.Fatalf("%s could be followed: %v", v.id, plan)
				}
				soonest(v.retryAt)
			}
			if mayTurn(v) && turns < turnSlots {
				if ready(v) {
					rt.Fatalf("%s could have a turn: %v", v.id, plan)
				}
				due := v.retryAt
				if !v.turnAt.IsZero() && v.turnAt.Add(10*time.Second).After(due) {
					due = v.turnAt.Add(10 * time.Second)
				}
				soonest(due)
			}
			for _, id := range plan.turn {
				if mayTurn(v) && ready(v) && since(v).Before(since(byID[id])) {
					rt.Fatalf("%s is before %s: %v", id, v.id, plan)
				}
			}
			for _, id := range plan.follow {
				if v.running && !v.retryAt.After(now) && since(v).Before(since(byID[id])) {
					rt.Fatalf("%s is followed before %s: %v", id, v.id, plan)
				}
			}
		}
		if !plan.next.Equal(next) {
			rt.Fatalf("%v instead of next %v", plan, next)
		}
	})
}

// streamSim is an engine with containers that are read as the plan says. Time
// is drawn; the plan is made again when there is news, or when it asked for it,
// and at no other time.
type streamSim struct {
	rt    *rapid.T
	limit int
	now   time.Time
	next  time.Time // of the last plan
	all   []*simStream
	total int // containers there have been
	// longest is the longest that a connection takes to come to the end of a
	// log. Turns fail if faults is set.
	longest time.Duration
	faults  bool
}

type simStream struct {
	streamView
	ends time.Time // when its connection comes to the log's end; zero: follows
	// wanted is since when it has been possible to read it but for a pause, the
	// last turn's and the last error's.
	wanted time.Time
}

// ready is from when on the container has waited for nothing but a slot.
func (c *simStream) ready() time.Time {
	at := c.wanted
	for _, t := range []time.Time{c.retryAt, c.turnAt.Add(10 * time.Second)} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

func (c *simStream) waits() bool {
	return !c.stopped && !c.following && !c.turning && (c.running || c.unread)
}

func (s *streamSim) drawn(what string, longest time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(longest/time.Millisecond)).Draw(s.rt, what)) * time.Millisecond
}

func (s *streamSim) come() {
	c := &simStream{wanted: s.now}
	c.id = fmt.Sprintf("c%d", s.total)
	c.running = rapid.IntRange(0, 3).Draw(s.rt, "runs") > 0
	c.unread = !c.running
	s.total++
	s.all = append(s.all, c)
}

// plan makes the plan and does what it says.
func (s *streamSim) plan() {
	views := make([]streamView, len(s.all))
	for i, c := range s.all {
		views[i] = c.streamView
	}
	plan := planStreams(views, s.limit, s.now)
	s.next = plan.next
	byID := make(map[string]*simStream)
	for _, c := range s.all {
		byID[c.id] = c
	}
	for _, id := range plan.stop {
		s.closed(byID[id])
	}
	for _, id := range plan.follow {
		c := byID[id]
		c.following, c.ends = true, time.Time{}
		if s.faults && rapid.IntRange(0, 9).Draw(s.rt, "connection breaks") == 0 {
			c.ends = s.now.Add(s.drawn("breaks after", s.longest))
		}
	}
	last := make(map[*simStream]time.Time) // the turns before
	for _, id := range plan.turn {
		c := byID[id]
		if !c.turnAt.IsZero() && s.now.Sub(c.turnAt) < 10*time.Second {
			s.rt.Fatalf("%s has a turn %v after its last", id, s.now.Sub(c.turnAt))
		}
		last[c] = c.turnAt
		c.turning, c.turnAt = true, s.now
		c.ends = s.now.Add(s.drawn("turn takes", s.longest))
	}
	open := 0
	for _, c := range s.all {
		if c.following || c.turning {
			open++
		}
		if !c.waits() {
			continue
		}
		// Nobody had a second turn while this one could have had one.
		for o, before := range last {
			if !before.IsZero() && c.ready().Before(before) {
				s.rt.Fatalf("%s has had two turns while %s waited, since %v", o.id, c.id, s.now.Sub(c.ready()))
			}
		}
		// So it is reached when each of the others has had one.
		if waited, bound := s.now.Sub(c.ready()), time.Duration(s.total+1)*s.longest; waited > bound {
			s.rt.Fatalf("%s has waited for %v; limit %d, %d containers", c.id, waited, s.limit, s.total)
		}
	}
	if open > s.limit {
		s.rt.Fatalf("%d connections", open)
	}
}

// closed is the end of a connection that has not come to the end of its log.
func (s *streamSim) closed(c *simStream) {
	if c.following && c.ends.IsZero() {
		c.readAt = s.now
	}
	c.following, c.turning, c.wanted = false, false, s.now
}

// end is the end of a connection by itself.
func (s *streamSim) end(c *simStream) {
	failed := s.faults && (c.following && c.running || rapid.IntRange(0, 4).Draw(s.rt, "fails") == 0)
	if failed {
		s.closed(c)
		c.retryAt = s.now.Add(s.drawn("retry after", 20*time.Second))
		return
	}
	c.following, c.turning, c.unread = false, false, false
	c.readAt, c.retryAt, c.wanted = s.now, time.Time{}, s.now
}

// pass lets time pass, with what happens meanwhile.
func (s *streamSim) pass(d time.Duration) {
	until := s.now.Add(d)
	for {
		at := until
		var first *simStream
		for _, c := range s.all {
			if (c.turning || c.following && !c.ends.IsZero()) && !c.ends.After(at) {
				at, first = c.ends, c
			}
		}
		asked := !s.next.IsZero() && s.next.Before(at)
		switch {
		case asked:
			s.now = s.next
		case first != nil:
			s.now = at
			s.end(first)
		default:
			s.now = until
			return
		}
		s.plan()
		if asked && s.next.Equal(s.now) {
			s.rt.Fatalf("next is now")
		}
	}
}

// step is something that happens to a container.
func (s *streamSim) step() {
	s.pass(s.drawn("time passes", 5*time.Second))
	if len(s.all) == 0 || len(s.all) < 60 && rapid.IntRange(0, 3).Draw(s.rt, "comes") == 0 {
		s.come()
		s.plan()
		return
	}
	i := rapid.IntRange(0, len(s.all)-1).Draw(s.rt, "container")
	c := s.all[i]
	switch what := rapid.IntRange(0, 6).Draw(s.rt, "what"); {
	case what < 2 && c.running:
		// What it wrote last is unread. A follower comes to the end by itself.
		c.running, c.unread = false, true
		if c.following && c.ends.IsZero() {
			c.ends = s.now.Add(s.drawn("rest takes", s.longest))
		}
	case what < 4 && !c.running:
		if !c.unread {
			c.wanted = s.now
		}
		c.running, c.unread = true, false
	case what == 4:
		c.stopped = true
		s.plan()
		c.stopped = false
		c.wanted = s.now
	case what == 5:
		c.stopped = true
		s.plan()
		s.pass(s.drawn("held for", 20*time.Second))
		c.stopped = false
		c.wanted = s.now
	case what == 6 && rapid.Bool().Draw(s.rt, "goes"):
		s.all = slices.Delete(s.all, i, i+1)
	}
	s.plan()
}

// TestPlanStreamsModel: whatever comes, exits, fails, is held back or goes,
// there are never more connections than the limit, no container has turns more
// often than every 10 s, and each is read within the time that the turns of all
// the others take.
func TestPlanStreamsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &streamSim{
			rt: rt, now: t0, limit: rapid.IntRange(1, 20).Draw(rt, "limit"),
			longest: time.Duration(rapid.IntRange(1, 15000).Draw(rt, "longest turn, ms")) * time.Millisecond,
			faults:  rapid.Bool().Draw(rt, "faults"),
		}
		for range rapid.IntRange(0, 60).Draw(rt, "containers there") {
			s.come()
		}
		s.plan()
		for range rapid.IntRange(0, 60).Draw(rt, "steps") {
			s.step()
		}
		// Now nothing happens any more, and all goes well: each is read.
		s.faults = false
		calm := s.now
		s.pass(20*time.Second + time.Duration(s.total+2)*s.longest)
		running := 0
		for _, c := range s.all {
			if c.running {
				running++
			}
			if c.unread || !c.readAt.After(calm) && !c.turning && !c.following && c.running {
				rt.Fatalf("%+v has not been read for %v", c.streamView, s.now.Sub(calm))
			}
		}
		followers := 0
		for _, c := range s.all {
			if c.following {
				followers++
			}
		}
		switch {
		case running <= s.limit && followers != running:
			rt.Fatalf("%d of %d are followed, limit %d", followers, running, s.limit)
		case running > s.limit && (followers < s.limit-max(1, s.limit/5) || followers > s.limit):
			rt.Fatalf("%d of %d are followed, limit %d", followers, running, s.limit)
		}
	})
}

func BenchmarkPlanStreams(b *testing.B) {
	views := make([]streamView, 1000)
	for i := range views {
		views[i] = streamView{
			id: fmt.Sprintf("%064x", i*7919%1000), running: true, following: i < 40,
			readAt: sec(i * 31 % 97), turnAt: sec(i * 31 % 89),
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		planStreams(views, 50, sec(100))
	}
}
