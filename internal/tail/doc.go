// Package tail reads one log as an ordered chain of files: the log itself and
// what rotation has made of its earlier parts (log.1, log.2, log.3.gz, ...),
// oldest first, without missing a file and without reading one twice.
//
//	inotify, poll --> Check, Refresh --> [log.2][log.1][log] --> Next --> complete lines
//
// It knows files, names and lines. It does not know what a line means, what has
// been delivered, or when to look: it starts no goroutine and watches nothing.
//
// The rules it builds on are Docker's (moby, daemon/logger/loggerutils/logfile.go,
// rotate): a file is renamed only after its writer has closed it, so a file whose
// path has moved on never changes again; renames go from the highest number to
// the lowest; a compressed part appears beside its original, which is unlinked
// when the archive is complete.
package tail
