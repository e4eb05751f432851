package monitors

import (
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/tail"
)

// fileLog is one container's log being read from its files. Who holds it (the
// reader of its lane, or whoever opens it before) owns every field but those of
// schedule, which belong to FileMonitor.mu.
type fileLog struct {
	containerLog
	lane   int // never changes
	tail   *tail.Log
	placed bool     // reading goes on from where delivery had stopped
	passed []passed // the files that lines on their way are from, oldest first

	schedule
}

// visitResult is what one visit of a log came to.
type visitResult struct {
	news bool // something has been read
	more bool // there may be more to read at once
	// chunk is what was read; its data is valid until the next visit.
	chunk tail.Chunk
	err   error
}

// visit reads at most one buffer's worth of a log into the batch. final: the
// container has exited, what is there is all there is.
func (j *joiner) visit(lg *fileLog, b *entry.Batch, buf []byte, final bool) (r visitResult) {
	c, err := lg.tail.Next(buf)
	r.err, r.chunk = err, c
	j.counts.nuls += int(c.Hole)
	if c.Truncated {
		// What is there now is new content; what was to be skipped is gone, and
		// where open text began as well.
		for s := range lg.streams {
			lg.streams[s].skip = skipRule{}
			lg.streams[s].fragAt = textStart{}
		}
	}
	r.news = len(c.Data) > 0 || c.Hole > 0
	// A container that has exited is read until there is nothing: only then are
	// its last words known to be the last.
	r.more = r.news && (!c.End || final)
	ended := false
	if c.End {
		// All that was there when reading began has been looked at, or is in
		// this chunk: no rule has anything left to cover behind it.
		for s := range lg.streams {
			ended = ended || lg.streams[s].skip.kind != skipNothing
		}
	}
	if err != nil || !r.news && !final && !ended {
		return r
	}
	var seq, offset int64
	lg.file, seq, offset = lg.tail.Where()
	j.beginSection(&lg.containerLog, b, seq, offset)
	if r.news {
		j.read(&lg.containerLog, b, c)
		lg.tail.Advance(len(c.Data))
		j.counts.bytes += len(c.Data)
	}
	for s := range lg.streams {
		switch st := &lg.streams[s]; {
		case !st.open:
		case !r.news && final, lg.over:
			j.endLine(&lg.containerLog, b, entry.Stream(s), 0)
		case st.fragSeq < c.Seq && c.Offset > 0:
			// Its file has been rotated away, and a whole buffer of the next
			// one did not end it: it may be gone before its end comes.
			j.endLine(&lg.containerLog, b, entry.Stream(s), entry.FlagPartial)
		}
	}
	if ended {
		for s := range lg.streams {
			lg.streams[s].skip = skipRule{}
		}
	}
	lg.file, seq, offset = lg.tail.Where()
	j.endSection(&lg.containerLog, b, seq, offset)
	return r
}
