package loki

import (
	"encoding/binary"
	"slices"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// The push protocol (Loki, pkg/push/push.proto), all fields length-delimited
// but the two of the timestamp:
//
//	PushRequest { streams = 1 }
//	Stream      { labels = 1; entries = 2 }
//	Entry       { timestamp = 1 { seconds = 1; nanos = 2 }; line = 2; structuredMetadata = 3 { name = 1; value = 2 } }
//
// All field numbers are below 16, so that a tag is one byte.
const (
	tagStreams   = 1<<3 | byte(protowire.BytesType)
	tagLabels    = 1<<3 | byte(protowire.BytesType)
	tagEntries   = 2<<3 | byte(protowire.BytesType)
	tagTimestamp = 1<<3 | byte(protowire.BytesType)
	tagLine      = 2<<3 | byte(protowire.BytesType)
	tagMetadata  = 3<<3 | byte(protowire.BytesType)
	tagName      = 1<<3 | byte(protowire.BytesType)
	tagValue     = 2<<3 | byte(protowire.BytesType)
	tagSeconds   = 1<<3 | byte(protowire.VarintType)
	tagNanos     = 2<<3 | byte(protowire.VarintType)
)

// partialMetadata is the encoded pair partial="true" that marks a piece of a
// line that was cut.
var partialMetadata = appendPair(nil, entry.Label{Name: "partial", Value: "true"})

// appendPair encodes one pair of structured metadata, its tag included.
func appendPair(b []byte, l entry.Label) []byte {
	n := 2 + protowire.SizeBytes(len(l.Name)) + protowire.SizeBytes(len(l.Value))
	b = append(b, tagMetadata)
	b = protowire.AppendVarint(b, uint64(n))
	b = append(b, tagName)
	b = protowire.AppendString(b, l.Name)
	b = append(b, tagValue)
	return protowire.AppendString(b, l.Value)
}

// splitTime gives the protocol's form of a time in nanoseconds: whole seconds
// rounded down and the nanoseconds above them, also before 1970.
func splitTime(t int64) (sec, nanos int64) {
	sec, nanos = t/1e9, t%1e9
	if nanos < 0 {
		sec, nanos = sec-1, nanos+1e9
	}
	return sec, nanos
}

// timeSize is the size of an encoded timestamp without its tag and length.
func timeSize(sec, nanos int64) int {
	n := 0
	if sec != 0 {
		n += 1 + protowire.SizeVarint(uint64(sec))
	}
	if nanos != 0 {
		n += 1 + protowire.SizeVarint(uint64(nanos))
	}
	return n
}

// bodySize is the size of an entry without its own tag and length; meta is the
// size of its encoded metadata. A timestamp is shorter than 128 bytes.
func bodySize(timeLen, textLen, meta int) int {
	return 2 + timeLen + 1 + protowire.SizeBytes(textLen) + meta
}

// entrySize is what a line takes within its stream, in bytes.
func entrySize(t int64, textLen, meta int) int {
	return 1 + protowire.SizeBytes(bodySize(timeSize(splitTime(t)), textLen, meta))
}

// streamBody is the size of a stream without its own tag and length, of
// entries that take so many bytes.
func streamBody(labels, entries int) int { return 1 + protowire.SizeBytes(labels) + entries }

// streamSize is what a stream takes within a request.
func streamSize(labels, entries int) int {
	return 1 + protowire.SizeBytes(streamBody(labels, entries))
}

const (
	// pieceBytes of protobuf are compressed at once, while they are in the
	// cache. Snappy's copies reach back 64 KiB at most, so little is lost.
	pieceBytes = 64 << 10
	// headBytes is room for the length of the whole before the first piece.
	headBytes = binary.MaxVarintLen64
	// maxEntryHead bounds what precedes an entry's text: two tags and lengths,
	// the timestamp, and tag and length of the text.
	maxEntryHead = 64
)

// encoder turns a request into snappy's block format piece by piece. A block is
// the length of the uncompressed whole and then elements, which may be made
// piece by piece since no copy reaches back beyond its own piece.
// Its memory is reused; it belongs to one request at a time.
type encoder struct {
	piece []byte // not yet compressed, cap pieceBytes
	out   []byte // headBytes of room, then elements
	head  []byte // of an entry or a stream that does not fit the piece
}

func (e *encoder) reset() {
	if e.piece == nil {
		e.piece = make([]byte, 0, pieceBytes)
	}
	e.piece = e.piece[:0]
	e.out = append(e.out[:0], make([]byte, headBytes)...)
}

// flush compresses the piece.
func (e *encoder) flush() {
	if len(e.piece) == 0 {
		return
	}
	n := len(e.out)
	e.out = slices.Grow(e.out, s2.MaxEncodedLen(len(e.piece)))
	// The encoder writes the piece's own length before its elements. That is
	// not wanted: it is made to lie over the bytes before, which are put back.
	h := protowire.SizeVarint(uint64(len(e.piece)))
	var saved [4]byte
	copy(saved[:h], e.out[n-h:n])
	enc := s2.EncodeSnappy(e.out[n-h:cap(e.out)], e.piece)
	e.out = e.out[:n-h+len(enc)]
	copy(e.out[n-h:n], saved[:h])
	e.piece = e.piece[:0]
}

// write appends bytes of any length, across pieces.
func (e *encoder) write(b []byte) {
	for len(b) > 0 {
		room := pieceBytes - len(e.piece)
		if room == 0 {
			e.flush()
			continue
		}
		n := min(room, len(b))
		e.piece = append(e.piece, b[:n]...)
		b = b[n:]
	}
}

// finish gives the compressed request of total uncompressed bytes. It is valid
// until the next reset.
func (e *encoder) finish(total int) []byte {
	e.flush()
	h := protowire.SizeVarint(uint64(total))
	binary.PutUvarint(e.out[headBytes-h:], uint64(total))
	return e.out[headBytes-h:]
}

// stream begins a stream whose entries take so many bytes.
func (e *encoder) stream(labels string, entries int) {
	b := e.head[:0]
	b = append(b, tagStreams)
	b = protowire.AppendVarint(b, uint64(streamBody(len(labels), entries)))
	b = append(b, tagLabels)
	b = protowire.AppendVarint(b, uint64(len(labels)))
	e.head = b
	e.write(b)
	for len(labels) > 0 { // as write, for a string
		if len(e.piece) == pieceBytes {
			e.flush()
		}
		n := min(pieceBytes-len(e.piece), len(labels))
		e.piece = append(e.piece, labels[:n]...)
		labels = labels[n:]
	}
}

// entry adds one line to the stream.
func (e *encoder) entry(t int64, text, meta, more []byte) {
	if len(e.piece)+maxEntryHead+len(text)+len(meta)+len(more) <= pieceBytes {
		b := appendEntryHead(e.piece, t, len(text), len(meta)+len(more))
		b = append(b, text...)
		b = append(b, meta...)
		b = append(b, more...)
		e.piece = b
		return
	}
	e.head = appendEntryHead(e.head[:0], t, len(text), len(meta)+len(more))
	e.write(e.head)
	e.write(text)
	e.write(meta)
	e.write(more)
}

// appendEntryHead appends what precedes an entry's text: at most maxEntryHead
// bytes.
func appendEntryHead(b []byte, t int64, text, meta int) []byte {
	sec, nanos := splitTime(t)
	ts := timeSize(sec, nanos)
	b = append(b, tagEntries)
	b = protowire.AppendVarint(b, uint64(bodySize(ts, text, meta)))
	b = append(b, tagTimestamp, byte(ts))
	if sec != 0 {
		b = append(b, tagSeconds)
		b = protowire.AppendVarint(b, uint64(sec))
	}
	if nanos != 0 {
		b = append(b, tagNanos)
		b = protowire.AppendVarint(b, uint64(nanos))
	}
	b = append(b, tagLine)
	return protowire.AppendVarint(b, uint64(text))
}
