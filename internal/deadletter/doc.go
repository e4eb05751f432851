// Package deadletter keeps, on disk, the lines that no store will take.
//
//	dispatch --Append (synced)----------> Log --> data_dir/dead_letters/dead_letters.jsonl
//	monitors --AppendUnsynced (copies)---/
//
// A line that the store has refused for good counts as delivered once Append
// has returned: it is then on the disk. A malformed line is shipped raw as well;
// its copy here is for whoever looks for the cause, so it is not synced, and a
// disk that fails does not stop the line.
//
// The package does not know why a line is here: it writes down what it is told.
// docs/formats/dead_letters.md describes the file. The lock on data_dir, which
// positions holds, sees to it that one agent writes there.
package deadletter
