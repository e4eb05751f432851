// Package positions remembers how far every log has been delivered: which
// spans of lines are in flight, how far the acknowledged ones reach without a
// gap, and the same on disk.
//
//	monitors --Register, Begin--> Store <--Ack-- dispatch
//	                                |
//	                                | one write(2) per Ack; Run: fsync at most once a second
//	                                v
//	                     data_dir/positions.journal
//
// A position moves on Ack only, never on Begin past a line that is still on its
// way. After kill -9 the journal holds what the last successful Ack saw; after a
// power loss it holds a state between the last fsync and that. Either way the
// saved position is never ahead of delivery, so that a crash can send lines
// twice and never lose one.
//
// When the disk fails, memory goes on: positions advance, delivery does not
// stop, Health says since when nothing was saved, and what was not written is
// written with the next Ack or within a second after the disk is back.
//
// The package does not know what a position means: it stores the ends it was
// given. docs/formats/positions.md describes the file.
package positions
