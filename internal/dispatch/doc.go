// Package dispatch carries batches of lines from the readers to the store, and
// the word that they have arrived back to the positions.
//
//	reader -- Reserve, fill, Submit --> lane: [batch][batch][batch] --> Sink.Push
//	                                      |                               |
//	                                      +-- parked parts (a refused   <-+ states of
//	                                          stream waits by itself)     | the parts
//	             Acks.Ack  <---- spans whose lines are all done  <--------+
//	             DeadLetters.Append  <---- lines refused for good  <------+
//
// A lane is an ordered road: what is submitted to it leaves in that order, one
// batch at a time. A container's name always maps to the same lane (LaneOf),
// so that the lines of one stream of the store are never overtaken.
//
// Memory is bounded: a lane owns a fixed number of batches and a reader waits
// in Reserve until one has room (pull, not push: nothing is read from a log
// unless there is room behind it). Parked parts are bounded by Config.ParkedBytes.
//
// A span is acknowledged once, and only when each of its lines has been accepted
// by the store or lies in the dead-letter file: after the request that brought the
// last of them, though the batch may take many more. What is not acknowledged when
// the agent stops is read again at the next start.
//
// To stop: end the readers and wait for them, call Drain with the grace that is
// left, then cancel Run's context and wait for Run. Leaving out Drain, or having
// it cut short, loses nothing: it only makes more to be read again.
//
// The package knows nothing of HTTP, of log formats, of files or of disk.
package dispatch
