package sink

import (
	"github.com/log-capturer/log_capturer/bench/internal/genlog"
)

// Tally is what has become of the lines that have arrived.
type Tally struct {
	// Lines is how many different ones did.
	Lines int `json:"lines"`
	// Doubled is how often one came that was there, Disordered how often one
	// came for the first time after a later one of its container and stream.
	Doubled    int `json:"doubled"`
	Disordered int `json:"disordered"`
	// Altered ones do not have the text they were written with. Partial ones are
	// first pieces of long lines, and Pieces the others, of an agent that does
	// not join them.
	Altered int `json:"altered"`
	Partial int `json:"partial"`
	Pieces  int `json:"pieces"`
	// Foreign are texts without an identity.
	Foreign int `json:"foreign"`
	// Containers is of how many there are lines.
	Containers int `json:"containers"`
}

// checker takes account of lines by their identities. It is not safe for concurrent
// use.
type checker struct {
	tally      Tally
	containers [][]uint64     // by container: a bit for each line seen
	last       []lastByStream // the highest number
}

// lastByStream holds one more than the highest number seen, for standard output and
// standard error.
type lastByStream [2]int

// add takes a line, and reports whether it is one that has not been there.
func (c *checker) add(line []byte) bool {
	id, ok := genlog.Parse(line)
	long := genlog.Long(id.Number)
	switch {
	case !ok && genlog.Continuation(line):
		c.tally.Pieces++
		return false
	case !ok:
		c.tally.Foreign++
		return false
	case !id.Whole && !long:
		c.tally.Altered++
		return false
	case !id.Whole:
		c.tally.Partial++
	}
	for len(c.containers) <= id.Container {
		c.containers = append(c.containers, nil)
		c.last = append(c.last, lastByStream{})
	}
	seen := c.containers[id.Container]
	if seen == nil {
		c.tally.Containers++
	}
	word, bit := id.Number/64, uint64(1)<<(id.Number%64)
	for len(seen) <= word {
		seen = append(seen, 0)
	}
	c.containers[id.Container] = seen
	if seen[word]&bit != 0 {
		c.tally.Doubled++
		return false
	}
	seen[word] |= bit
	c.tally.Lines++
	stream := 0
	if genlog.Stderr(id.Number) {
		stream = 1
	}
	last := &c.last[id.Container][stream]
	if id.Number < *last {
		c.tally.Disordered++
	}
	*last = max(*last, id.Number+1)
	return true
}

// missing gives how many lines have not arrived of those written, which are the
// first counts[i] of container i.
func (c *checker) missing(counts []int) (n int) {
	for container, count := range counts {
		var seen []uint64
		if container < len(c.containers) {
			seen = c.containers[container]
		}
		for number := range count {
			if word := number / 64; word >= len(seen) || seen[word]&(1<<(number%64)) == 0 {
				n++
			}
		}
	}
	return n
}
