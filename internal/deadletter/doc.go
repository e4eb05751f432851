// Package deadletter keeps, on disk, the lines that no store will take, and
// sends them again when somebody asks for it.
//
//	dispatch --Append (synced)----------> Log --> data_dir/dead_letters/
//	monitors --AppendUnsynced (copies)---/            |    ^
//	                                                  v    | what was sent
//	dlq list <-------------------------------------- Each  |
//	dlq replay --Replay--> Sink <--------------------------+
//
// A line that the store has refused for good counts as delivered once Append
// has returned: it is then on the disk. A malformed line is shipped raw as well;
// its copy here is for whoever looks for the cause, so it is not synced, a disk
// that fails does not stop the line, and a flood of copies is cut short.
//
// One file is written at a time; full ones are set aside, and the oldest are
// deleted when all together reach a limit. Readers take no part in that: they
// lock nothing that the agent knows of, and change none of its files.
//
// The package does not know why a line is here: it writes down what it is told.
// docs/formats/dead_letters.md describes the files. The lock on data_dir, which
// positions holds, sees to it that one agent writes there.
package deadletter
