// Package testbuffer has what tests read while others still write to it.
package testbuffer

import (
	"bytes"
	"sync"
)

// Buffer takes what a log or a command writes. It is safe for concurrent use; the zero
// value is empty.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to the text. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String gives the text so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
