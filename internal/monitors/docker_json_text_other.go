//go:build !amd64

package monitors

// jsonVectors says that the processor has what jsonText needs. For this one there is none.
var jsonVectors = false

func jsonText(_, _ *byte, _ int) (read, wrote int, high uint64) { panic("no vectors") }
