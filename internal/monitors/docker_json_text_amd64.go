package monitors

import "golang.org/x/sys/cpu"

// jsonVectors says that the processor has what jsonText and jsonUTF8 need: AVX-512 with VBMI2 (Intel
// since Ice Lake, AMD since Zen 4), and that the kernel saves its registers. Only tests change it.
var jsonVectors = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VBMI && cpu.X86.HasAVX512VBMI2 &&
	cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasPOPCNT

// jsonText decodes the text of a JSON string, blocks of jsonBlock bytes at src, to dst, as
// far as the closing quote or an escape or a byte that it does not know: what is not ASCII
// behind \u, but for \ufffd, or not written as Docker does, and whatever is not valid. It has read so many
// bytes and written so many, and high is not 0 if any that it read is not ASCII. When it
// meets nothing of that it reads to the end of the blocks, or up to one byte before it if
// the last one is a backslash that begins an escape.
//
// dst has room for as many bytes as there are to read: what lies behind those that it
// wrote is overwritten. There is a byte before src, which it may look at.
//
//go:noescape
func jsonText(dst, src *byte, blocks int) (read, wrote int, high uint64)

// jsonUTF8 reports whether the n bytes at text are UTF-8, as utf8.Valid does. n is at least 1.
//
//go:noescape
func jsonUTF8(text *byte, n int) bool
