// Package stdout is the sink that prints: it takes the place of the Loki sink
// when an operator wants to see lines instead of shipping them.
//
//	dispatch --Push(batch)--> stdout: TIME STREAM CONTAINER MESSAGE
//
// What containers write is not trusted: control characters, among them the
// escape sequences that steer a terminal, are shown as \x1b and the like.
package stdout
