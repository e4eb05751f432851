// Package spool keeps on disk, in order, what the store does not take: a queue of
// opaque frames for each lane, under one cap.
//
//	dispatch --Append (synced)--> Lane --> data_dir/spool/lane-N/*.seg
//	    ^                          |
//	    +----Next, Ack (unsynced)--+
//
// A frame is in the queue when Append has returned nil: it survives a power loss
// from then on. It leaves the queue by Ack. What is not acknowledged comes again
// after a restart, in the same order, so after a crash some frames may be sent
// twice: as many as were acknowledged since the cursor last reached the disk, and
// never more than lie in the segments that are still there. Segments of which
// every frame is done are removed at once, or renamed if lines in them could not be
// read or understood.
//
// Who uses it (internal/dispatch, spooling.go) opens it after positions, whose lock
// on data_dir keeps a second process out, acknowledges lines to positions when
// Append has returned nil, and a frame here when all its lines are done with. After
// ErrFull or any other error of Append nothing has changed.
//
//   - Frames and records that are damaged on disk are counted here, not by
//     container: nobody can tell whose they were.
//   - At the start Health().Records is what the balance of invariant 2 calls "in
//     spool at start"; frames that the cursor's loss brings twice are in it.
//   - Stop: spill what is left, wait for the sender, then Close.
//
// The package knows nothing of logs, and starts no goroutine.
// docs/formats/spool.md describes the files.
package spool
