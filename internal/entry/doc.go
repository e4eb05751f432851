// Package entry holds the plain data that travels from a container's log to
// the store: lines, the batches they travel in, the labels they carry, and the
// positions that say how far a log has been delivered.
//
//	monitors --(Batch)--> dispatch --(Batch)--> loki
//	    ^                     |
//	    +--- positions <------+ Span
//
// The package knows nothing of Docker, files, Loki or disk, and starts no
// goroutine. Unless a type says otherwise its values belong to one goroutine at
// a time; the one who hands a value on stops using it.
package entry
