package entry

// Stream is the output of a container that a line came from.
type Stream uint8

// The two outputs of a container. A line of which the stream cannot be told (a
// malformed one) counts as Stdout where a position is concerned.
const (
	Stdout Stream = iota
	Stderr
	NumStreams = 2
)

// String gives Docker's own name: "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Class chooses under which of a source's label sets a line is shipped.
type Class uint8

// The classes. The first two equal their Stream.
const (
	ClassStdout    = Class(Stdout)
	ClassStderr    = Class(Stderr)
	ClassMalformed = Class(2)
	NumClasses     = 3
)

// Stream is the stream whose position covers lines of class c.
func (c Class) Stream() Stream {
	if c == ClassStderr {
		return Stderr
	}
	return Stdout
}

// LogEntry is one line of a container's log, ready to be shipped.
type LogEntry struct {
	// Time is when Docker received the line, in nanoseconds since the Unix
	// epoch (UTC).
	Time int64
	// Stream is the output the line was written to.
	Stream Stream
	// Message is the text without its line end. It is a slice of a buffer
	// that the caller of whoever filled it owns.
	Message []byte
}
