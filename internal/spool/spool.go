package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// DefaultMaxBytes is the cap over all lanes.
	DefaultMaxBytes = 1 << 30
	// DefaultMinFreeBytes is the floor of free space on the disk.
	DefaultMinFreeBytes = 256 << 20
	// MaxPayloadBytes is the largest payload.
	MaxPayloadBytes = 64 << 20

	dirName      = "spool"
	maxLanes     = 64 // directories with a higher number are nobody's
	segmentBytes = 16 << 20
	// A small cap is cut into segments, too: space comes back a segment at a time.
	segmentsPerLane = 8
	reserveFrames   = 1 << 20 // in the reserve, for each lane, for frames that are larger than a segment
	minSegmentBytes = 64 << 10
	keepBuffer      = 4 << 20 // the largest buffer kept for the next frame
	mostKeptLost    = 2       // segments with frames that could not be read, of each lane
	paceWindow      = 10 * time.Second
	// readPatience is for how long a lane waits for what the disk does not give back:
	// a disk that is away comes back, a bad sector does not.
	readPatience = time.Hour
	// askAgainWithin is the longest that whoever has something for the spool waits
	// after it was not taken.
	askAgainWithin = 2 * time.Minute
)

// ErrFull is what keeps frames out for want of room; the text says which limit does, by
// its key in the configuration, or that it is the disk itself.
var ErrFull = errors.New("spool is full")

// ErrNotGiven is given for a frame that is not to be acknowledged.
var ErrNotGiven = errors.New("not given by Next, or done before")

// Config is what a Spool is opened with.
type Config struct {
	// Dir is data_dir, which exists and is locked by positions.
	Dir string
	// Files is another data_dir than the real one of that name, for tests; nil: that one.
	Files disk.Dir
	// Lanes is the number of queues.
	Lanes int
	// MaxBytes is the cap of all files together; 0: the default.
	MaxBytes int64
	// MinFreeBytes is what is left free on the file system; 0: the default, below: nothing.
	MinFreeBytes int64
	// Logger is for the operator; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	segmentBytes int64 // 0: by MaxBytes; smaller in tests
}

// reserve is how much of the cap, and of the floor of free space, only AppendReserved
// may use: in each lane as much as can be moved before its space comes back, which it
// does by segments, but a quarter at most.
func (c *Config) reserve() (ofCap, ofFloor int64) {
	r := int64(c.Lanes) * (c.segmentBytes + reserveFrames)
	return min(r, c.MaxBytes/4), min(r, max(0, c.MinFreeBytes)/4)
}

// Spool is the queues of all lanes under one cap. All methods are safe for
// concurrent use. It starts no goroutine.
type Spool struct {
	cfg   Config
	log   *slog.Logger
	m     *metrics
	files disk.Dir // data_dir/spool
	enc   *zstd.Encoder
	dec   *zstd.Decoder
	lanes []*Lane

	// mu guards what follows. It is taken after a Lane's, and no disk is waited
	// for while it is held.
	mu         sync.Mutex
	used       int64     // by files, and by writes under way
	found      int64     // of it, at the start
	room       int64     // above the floor of free space when it was last looked at
	figures    []figures // by lane
	failed     []failure // by lane
	saidLostIn string
	pace       pace
}

// figures are what waits in a lane.
type figures struct {
	frames, records uint64
	bytes           int64
	oldest          int64 // 0 without frames
}

// Open opens data_dir/spool and takes over what lies there. More lanes than
// Config.Lanes are opened when an earlier agent had more and they hold frames.
// What is damaged is passed over, counted and logged; an error is one of the
// directory itself.
func Open(cfg Config) (*Spool, error) {
	if cfg.Files == nil {
		cfg.Files = disk.OS(cfg.Dir)
	}
	files, err := cfg.Files.Sub(dirName)
	if err == nil {
		err = cfg.addLanes(files)
	}
	if err != nil {
		return nil, fmt.Errorf("open the spool (data_dir must be writable for the agent): %w", err)
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MinFreeBytes == 0 {
		cfg.MinFreeBytes = DefaultMinFreeBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.segmentBytes == 0 {
		cfg.segmentBytes = max(minSegmentBytes, min(segmentBytes, cfg.MaxBytes/int64(max(1, cfg.Lanes)*segmentsPerLane)))
	}
	s := &Spool{cfg: cfg, log: cfg.Logger, m: newMetrics(), files: files, room: math.MaxInt64, figures: make([]figures, cfg.Lanes), failed: make([]failure, cfg.Lanes)}
	// Both cost memory on the first use only.
	s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(max(1, cfg.Lanes)),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err == nil {
		s.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(max(1, cfg.Lanes)), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxPayloadBytes))
	}
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	for i := range cfg.Lanes {
		var l *Lane
		lane, err := files.Sub(laneDir(i))
		if err == nil {
			l, err = openLane(s, i, lane)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open lane %d of the spool (data_dir must be writable for the agent): %w", i, err), s.Close())
		}
		s.lanes = append(s.lanes, l)
	}
	if cfg.Registerer != nil {
		if err := s.m.register(cfg.Registerer, s); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	s.pace, s.found = pace{}, s.used // what was found there has not come in
	if h := s.Health(); h.Frames > 0 {
		s.log.Info("spool holds lines of an earlier run: they are sent first", "frames", h.Frames, "records", h.Records, "bytes", h.Bytes, "oldest", h.Oldest)
	}
	return s, nil
}

func laneDir(i int) string { return "lane-" + strconv.Itoa(i) }

// addLanes counts in the lanes of which there are segments.
func (c *Config) addLanes(files disk.Dir) error {
	all, err := files.List()
	for _, e := range all {
		number, ok := strings.CutPrefix(e.Name, "lane-")
		i, err := strconv.Atoi(number)
		if !ok || err != nil || i < c.Lanes || i >= maxLanes || laneDir(i) != e.Name || !e.IsDir {
			continue
		}
		lane, err := files.Sub(e.Name)
		if err != nil {
			return err
		}
		if firsts, _ := segments(lane); len(firsts) > 0 { // one that cannot be read is nobody's
			c.Lanes = i + 1
		}
	}
	return err
}

// Lanes is the number of lanes, at least Config.Lanes.
func (s *Spool) Lanes() int { return len(s.lanes) }

// Lane gives one queue.
func (s *Spool) Lane(i int) *Lane { return s.lanes[i] }

// Close syncs the cursors and closes all files. What is appended, read or
// acknowledged afterwards gets os.ErrClosed.
func (s *Spool) Close() (err error) {
	for _, l := range s.lanes {
		err = errors.Join(err, l.close())
	}
	s.dec.Close()
	if err != nil {
		return fmt.Errorf("close the spool (frames may be sent twice): %w", err)
	}
	return nil
}

// limits gives how many bytes the files may take, and how many the disk may have free
// less than the floor, with the reserve or without.
func (s *Spool) limits(reserved bool) (most, below int64) {
	ofCap, ofFloor := s.cfg.reserve()
	switch {
	case !reserved:
		return s.cfg.MaxBytes - ofCap, 0
	case s.found > s.cfg.MaxBytes: // which was lowered: what moves within must still fit
		return s.found + ofCap, ofFloor
	}
	return s.cfg.MaxBytes, ofFloor
}

// take takes room for n bytes of a lane, or gives an ErrFull.
func (s *Spool) take(lane int, n int64, reserved bool) error {
	most, below := s.limits(reserved)
	free, err := s.files.Free()
	room := int64(math.MaxInt64) // unknown: the write will tell
	if err == nil && s.cfg.MinFreeBytes > 0 {
		room = free - s.cfg.MinFreeBytes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = room
	switch {
	case n > most-s.used:
		return s.fail(lane, fmt.Errorf("%w: %d more bytes do not fit, %d of %d are in use, and some are kept for what moves within the spool; raise spool.max_bytes to hold out longer",
			ErrFull, n, s.used, s.cfg.MaxBytes))
	case n-below > room:
		return s.fail(lane, fmt.Errorf("%w: the disk has %d bytes free, %d are to be left so; free space on the file system of data_dir or lower spool.min_free_bytes",
			ErrFull, free, s.cfg.MinFreeBytes))
	}
	s.used += n
	return nil
}

// failure is what a lane's last append came to; err is nil after one that succeeded.
type failure struct {
	err error
	at  time.Time
}

// failures gives a lane's ErrFull and another error of the disk, where there are
// any. A failure that nobody has met again is none any more: what was to be appended
// then has found another way. Called with mu held.
func (s *Spool) failures() (full, write error) {
	now := s.cfg.Now()
	for i := range s.failed {
		f := &s.failed[i]
		if now.Sub(f.at) >= askAgainWithin {
			*f = failure{}
		}
		switch {
		case f.err == nil:
		case errors.Is(f.err, ErrFull):
			full = f.err
		default:
			write = f.err
		}
	}
	return full, write
}

// fail notes that a lane's frame does not get in; smaller ones of others may. Called
// with mu held.
func (s *Spool) fail(lane int, err error) error {
	if errors.Is(err, ErrFull) {
		s.m.refused.Inc()
	}
	s.note(s.failed[lane:lane+1], failure{err, s.cfg.Now()})
	return err
}

// note sets what the last appends of some lanes, a part of failed, have come to, and says
// what that changes for the spool as a whole. The zero failure is for lanes that have found
// room or need none. Called with mu held.
func (s *Spool) note(lanes []failure, f failure) {
	fullBefore, writeBefore := s.failures()
	for i := range lanes {
		lanes[i] = f
	}
	full, write := s.failures()
	switch {
	case full != nil && fullBefore == nil:
		s.log.Error("spool takes no more: what cannot be sent stays unread in the logs, where rotation may take it", "error", full)
	case write != nil && writeBefore == nil:
		s.log.Error("spool cannot be written: what cannot be sent stays unread in the logs, where rotation may take it", "error", write)
	case full == nil && write == nil && (fullBefore != nil || writeBefore != nil):
		s.log.Info("spool takes lines again")
	}
}

// release gives room back.
func (s *Spool) release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

// writeFailed notes an error of the disk, and gives it with what to do.
func (s *Spool) writeFailed(lane int, err error) error {
	s.m.writeErrors.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if disk.NoSpace(err) {
		return s.fail(lane, fmt.Errorf("%w: lane %d: %w; %s", ErrFull, lane, err, disk.Hint(err)))
	}
	return s.fail(lane, fmt.Errorf("write to lane %d of the spool (nothing is spooled; %s): %w", lane, disk.Hint(err), err))
}

// wrote notes frames that are on the disk.
func (s *Spool) wrote(lane int, records uint32, frames int) {
	s.m.appended.Add(float64(frames))
	s.m.appendedRecords.Add(float64(records))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(s.failed[lane:lane+1], failure{})
}

// lost counts frames that cannot be read, and says so once for a segment.
func (s *Spool) lost(lane int, segment string, frames, records uint64, why error) {
	s.m.lostFrames.Add(float64(frames))
	s.m.lostRecords.Add(float64(records))
	s.mu.Lock()
	defer s.mu.Unlock()
	if where := laneDir(lane) + "/" + segment; where != s.saidLostIn {
		s.saidLostIn = where
		s.log.Error("spool segment is damaged: frames are passed over and their lines lost; check the disk of data_dir",
			"segment", where, "frames", frames, "records", records, "error", why)
	}
}

// publish takes a lane's figures.
func (s *Spool) publish(lane int, f figures) {
	s.mu.Lock()
	defer s.mu.Unlock()
	drained := s.figures[lane].frames > 0 && f.frames == 0
	s.figures[lane] = f
	all := s.sum()
	s.pace.note(s.cfg.Now(), all.bytes)
	switch { // nobody may append again for long
	case drained && all.frames == 0:
		s.note(s.failed, failure{})
	case drained:
		s.note(s.failed[lane:lane+1], failure{})
	}
}

// sum adds up what waits. Called with mu held.
func (s *Spool) sum() (all figures) {
	for _, f := range s.figures {
		if f.frames > 0 && (all.frames == 0 || f.oldest < all.oldest) {
			all.oldest = f.oldest
		}
		all.frames += f.frames
		all.records += f.records
		all.bytes += f.bytes
	}
	return all
}

// pace is how fast the bytes that wait become more.
type pace struct {
	since     time.Time
	level     int64   // then
	perSecond float64 // in the window before; below zero: they become fewer
}

func (p *pace) note(now time.Time, level int64) {
	d := now.Sub(p.since)
	if d < paceWindow {
		return
	}
	if !p.since.IsZero() {
		p.perSecond = float64(level-p.level) / d.Seconds()
	}
	p.since, p.level = now, level
}

// State is what the spool does at large.
type State string

// The states.
const (
	Empty    State = "empty"    // nothing waits
	Filling  State = "filling"  // more comes in than goes out
	Draining State = "draining" // the other way round
	Full     State = "full"     // a lane's last append was refused for want of room
)

// Health is the state of the spool.
type Health struct {
	State State
	// Frames, Records and Bytes wait. DiskBytes is what the files take, of MaxBytes.
	Frames, Records uint64
	Bytes           int64
	DiskBytes       int64
	MaxBytes        int64
	// Oldest is the time of the oldest line that waits, to within a segment; zero: none does.
	Oldest time.Time
	// TimeLeft is how long there will be room at the present rate; 0 unless filling.
	TimeLeft time.Duration
	// Full is why a lane's last append was refused, an ErrFull; WriteError why its
	// last write failed; nil after one that succeeded, once all is drained, and when
	// nobody has tried again for two minutes.
	Full, WriteError error
}

// Health gives the state. It waits for no disk.
func (s *Spool) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.sum()
	s.pace.note(s.cfg.Now(), all.bytes)
	h := Health{
		State: Draining, Frames: all.frames, Records: all.records, Bytes: all.bytes,
		DiskBytes: s.used, MaxBytes: s.cfg.MaxBytes,
	}
	h.Full, h.WriteError = s.failures()
	if all.frames > 0 {
		h.Oldest = time.Unix(0, all.oldest)
	}
	switch {
	case h.Full != nil:
		h.State = Full
	case all.frames == 0:
		h.State = Empty
	case all.bytes > s.pace.level || all.bytes == s.pace.level && s.pace.perSecond > 0:
		h.State = Filling
		if s.pace.perSecond > 0 {
			most, _ := s.limits(false)
			room := max(0, min(most-s.used, s.room))
			h.TimeLeft = time.Duration(min(float64(room)/s.pace.perSecond, 1e9)) * time.Second
		}
	}
	return h
}
