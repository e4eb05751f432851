package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a configuration file.
type Error struct {
	// File is the path as it was given, Line counts from 1.
	File string
	Line int
	// Key is the path of the key, such as "server.port" or
	// "monitors.container.log_drivers[0]"; empty when the file as a whole is
	// wrong.
	Key string
	// Problem says what is wrong, Allowed what would be right.
	Problem, Allowed string
}

// Error gives one line: "file:line: key: what is wrong; what is allowed".
func (e Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", e.File, e.Line)
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	if e.Allowed != "" {
		b.WriteString("; " + e.Allowed)
	}
	return b.String()
}

// Errors are all the things that are wrong with a file, by line.
type Errors []Error

// Error gives one line per error, without a final line end.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, x := range e {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders the errors by line; those of one line stay as they were found.
func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
	return e
}
