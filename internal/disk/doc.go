// Package disk is the agent's own files: those in data_dir, of which each package
// that keeps something there has a directory.
//
//	positions --+
//	spool ------+--> Dir, File --> OS: the real one
//	deadletter -+              \-> disktest: in memory, with faults and power losses
//
// What may be relied on is what a file system on Linux gives: bytes last after
// File.Sync, names after Dir.Sync, a rename takes place as a whole or not at all.
// It knows nothing of what is in the files. All of it is safe for concurrent use.
package disk
