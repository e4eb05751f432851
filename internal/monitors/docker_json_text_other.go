//go:build !amd64

package monitors

// jsonVectors says that the processor has what jsonText and jsonUTF8 need. For this one there is none.
var jsonVectors = false

func jsonText(_, _ *byte, _ int) (read, wrote int, high uint64) { panic("no vectors") }

func jsonUTF8(_ *byte, _ int) bool { panic("no vectors") }
