package monitors

import (
	"log/slog"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// LogConfig is what both roads, files and streams, are made of.
type LogConfig struct {
	Outlet   Outlet
	Registry Registry
	Spans    Spans
	Labels   LabelConfig

	// MaxLineBytes cuts longer lines.
	MaxLineBytes int
	// FirstStart is when this agent first ran. Logs of older containers are
	// read from their end if FromEnd is set, and without what was older than
	// IgnoreOlderThan (0: nothing is too old) then.
	FirstStart      time.Time
	FromEnd         bool
	IgnoreOlderThan time.Duration

	Logger *slog.Logger
	Lines  *LineMetrics
}

// containerLog is one container's log being read, on either road. Who reads it
// owns it: one goroutine at a time.
type containerLog struct {
	// What never changes: the container's ID and its name when it was met, the
	// counters.
	id, name string
	stats    *entry.Stats
	// path is the log's file; empty for a stream. byTime: it is a stream, and
	// its positions are times alone.
	path   string
	byTime bool

	log uint32 // number in the positions
	src *entry.Source
	// note is kept with the position: it says the source's name.
	note string
	// next, unless nil, is the start whose entries come next.
	next *nextStart
	// file is the one that is being read; zero for a stream.
	file entry.FileID

	streams [entry.NumStreams]streamState
	// lastTime is the latest of the entries before, for lines that have none.
	// Positions tell it again after a restart, the last entry's they do not:
	// stdout and stderr are not in the order of their times.
	lastTime int64
	// latest is the time of the entry before, whatever came earlier.
	latest int64
	// ignoreBefore: entries older than this (Unix ns) are skipped and counted.
	// It never changes for a container, so a restart skips the same ones.
	ignoreBefore int64
	ignored      int64 // entries skipped so
	// over: reading has come to a start from which on nothing is captured.
	over    bool
	fromEnd bool // what is there at the first start is not wanted
}

// newLog makes what a road keeps of a container that it meets, and its names.
func (c *LogConfig) newLog(info ContainerLogFileInfo, method string) (containerLog, startNames) {
	saved, _ := c.Registry.Lookup(info.ID)
	names := namesOf(info, saved.Note)
	lg := containerLog{
		id: info.ID, name: names.name, stats: info.stats, note: names.String(),
		byTime: method == MethodStreaming, lastTime: info.Created.UnixNano(),
	}
	if lg.stats == nil {
		lg.stats = &entry.Stats{}
	}
	if method == MethodFileMonitor {
		lg.path = info.LogPath
	}
	lg.src = c.source(info, names.name, names.first, method, lg.stats)
	starts := startNames{names: names}
	if names.before != "" {
		starts.coming = &nextStart{src: lg.src, since: names.since, ended: names.since, note: lg.note}
		lg.src, lg.note = c.source(info, names.before, names.first, method, lg.stats), saved.Note
	}
	if info.Created.Before(c.FirstStart) {
		lg.fromEnd = c.FromEnd
		if c.IgnoreOlderThan > 0 {
			lg.ignoreBefore = c.FirstStart.Add(-c.IgnoreOlderThan).UnixNano()
		}
	}
	return lg, starts
}

// source makes what a container's lines are labelled with, and sent in the lane of first.
func (c *LogConfig) source(info ContainerLogFileInfo, name, first, method string, stats *entry.Stats) *entry.Source {
	info.Name = name
	src := &entry.Source{
		ID: info.ID, Name: name, Method: method,
		Lane: c.Outlet.LaneOf(first), Stats: stats,
	}
	if method == MethodFileMonitor {
		src.Path = info.LogPath
	}
	src.Labels, src.Metadata = labelsOf(c.Labels, info)
	return src
}

// resume lets a log go on where reading has stopped, as a plan says.
func (c *LogConfig) resume(lg *containerLog, saved [entry.NumStreams]entry.Position, plan *resumePlan) {
	for s := range lg.streams {
		pos := saved[s]
		lg.streams[s] = streamState{time: pos.Time, ordinal: pos.Ordinal, saved: pos, skip: plan.skip[s]}
	}
	lg.lastTime = max(lg.lastTime, plan.timeBefore(saved))
	lg.log = c.Registry.Register(lg.id, lg.note, saved)
	if lg.src.Log != lg.log { // else others may be reading it: its lines are on their way
		lg.src.Log = lg.log
	}
}

// sayIgnored says, once for each log, that old entries are skipped; before is how
// many were before.
func (c *LogConfig) sayIgnored(lg *containerLog, before int64) {
	if before == 0 && lg.ignored > 0 {
		c.Logger.Info("entries older than ignore_older_than are skipped", "container", lg.name)
	}
}

// startedAgain keeps the name of a new start beside the position: everything up
// to offset at of the file has been read.
func (c *LogConfig) startedAgain(lg *containerLog, at int64) {
	c.Registry.Register(lg.id, lg.note, lg.ends(at))
}

// ends gives where the streams stand when everything up to an offset of the file
// has been read.
func (lg *containerLog) ends(offset int64) (ends [entry.NumStreams]entry.Position) {
	for s := range lg.streams {
		ends[s] = lg.position(entry.Stream(s), offset)
	}
	return ends
}

// position gives where a stream stands when everything up to an offset of the
// file has been read.
func (lg *containerLog) position(s entry.Stream, offset int64) entry.Position {
	st := &lg.streams[s]
	switch {
	case st.skip.holds():
		return st.saved // still short of what was delivered before
	case st.open:
		return st.before
	case lg.byTime && !st.unended && lg.latest-crossStreams > st.time:
		// The other stream says that nothing of this one has come until then:
		// one that is silent for a week must not be resumed a week back. Only
		// the rest of a line can still come with the time of its beginning.
		return entry.Position{Time: lg.latest - crossStreams}
	}
	return entry.Position{File: lg.file, Offset: offset, Time: st.time, Ordinal: st.ordinal}
}

// method is the road.
func (lg *containerLog) method() string {
	if lg.byTime {
		return MethodStreaming
	}
	return MethodFileMonitor
}

// startNames are the names of a container's starts, as the engine tells them.
type startNames struct {
	// coming becomes containerLog.next when the log is read next.
	coming *nextStart
	names  nameNote // of the newest start that is known
}

// startedAgain takes account of another start of the container: what comes after
// the exit before belongs to it. It is false if the start is known already.
func (s *startNames) startedAgain(c *LogConfig, lg *containerLog, info ContainerLogFileInfo) bool {
	if !s.names.started.Before(info.StartedAt) {
		return false
	}
	since, exact := runSince(info)
	ended := since
	if !exact && s.names.name == info.Name {
		// A line that is open may be of either run, and it is not worth being cut in two:
		// it ends by itself, at the latest when the log of this run, which is over, does.
		ended = 0
	}
	s.names = s.names.startedAgain(info)
	s.coming = s.coming.then(&nextStart{
		src: c.source(info, info.Name, s.names.first, lg.method(), lg.stats), since: since, ended: ended, note: s.names.String(),
	})
	return true
}

// stopAt says that nothing is captured from the container's present start on.
func (s *startNames) stopAt(info ContainerLogFileInfo) {
	since, _ := runSince(info)
	s.coming = &nextStart{since: since}
}

// hand gives the reader what has come.
func (s *startNames) hand(lg *containerLog) {
	if s.coming != nil {
		lg.next, s.coming = lg.next.then(s.coming), nil
	}
}

// nextStart is another start of a log's container: the source from the first
// entry on that is not older than since (Unix ns), and its note.
type nextStart struct {
	src   *entry.Source // nil: nothing is captured from there on
	since int64
	ended int64 // lines begun before that are ended there: their process is no more
	note  string
}

// then gives what is to come of two starts of which the first, nil if there was
// none, has not been met in the log yet.
func (n *nextStart) then(later *nextStart) *nextStart {
	if n != nil && n.src != nil && later.src != nil && n.src.Name == later.src.Name {
		later.since, later.ended = n.since, n.ended
	}
	return later
}

// streamState is where one stream of a log stands.
type streamState struct {
	// time and ordinal are those of the last entry consumed (entry.Position).
	time    int64
	ordinal uint32
	// saved is the position from which reading was resumed; skip says what is
	// already delivered behind the place where reading began.
	saved entry.Position
	skip  skipRule
	// frag is the open fragment: what has come of a line whose end has not.
	// before is the stream's position ahead of it, fragSeq the file it began in;
	// fragAt is where the text in frag begins.
	open    bool
	cut     bool   // a piece of this line has been shipped
	unended bool   // the last entry was a fragment, shipped or not
	frag    []byte // nil while none is open
	fragT   int64
	before  entry.Position
	fragSeq int64
	fragAt  textStart
}

// textStart is the entry that a text begins with: where it lies in which file, or,
// of a stream, its ordinal.
type textStart struct {
	seq     int64
	place   entry.Place
	ordinal uint32
}

// note takes account of an entry consumed.
func (st *streamState) note(t int64) {
	if t == st.time {
		st.ordinal++
		return
	}
	st.time, st.ordinal = t, 1
}
