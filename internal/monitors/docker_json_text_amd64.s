#include "textflag.h"

// What a backslash and an ASCII character stand for, by the character, as in
// jsonSimpleEscapes; 0: something else than a byte.
DATA jsonEscapes<>+0x00(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x08(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x10(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x18(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x20(SB)/8, $0x0000000000220000 // "
DATA jsonEscapes<>+0x28(SB)/8, $0x2f00000000000000 // /
DATA jsonEscapes<>+0x30(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x38(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x40(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x48(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x50(SB)/8, $0x0000000000000000
DATA jsonEscapes<>+0x58(SB)/8, $0x0000005c00000000 // \
DATA jsonEscapes<>+0x60(SB)/8, $0x000c000000080000 // b f
DATA jsonEscapes<>+0x68(SB)/8, $0x000a000000000000 // n
DATA jsonEscapes<>+0x70(SB)/8, $0x00000009000d0000 // r t
DATA jsonEscapes<>+0x78(SB)/8, $0x0000000000000000
GLOBL jsonEscapes<>(SB), RODATA|NOPTR, $128

// func jsonText(dst, src *byte, blocks int) (read, wrote int, high uint64)
//
// Of a block of 64 bytes it makes masks, bit i for byte i, says which backslashes begin an
// escape, puts in place of each escaped character what it stands for, and closes the gaps
// that the backslashes leave (VPCOMPRESSB). Nothing of that branches by what the text is; a block with
// many escapes takes as long as one without.
//
//	SI src, R8 read    DI dst, R9 wrote    CX blocks left    R10 high
//	DX 1 if the last byte of the block before is a backslash that begins an escape, else 0
//	R11 the odd bits   Z0, Z1 jsonEscapes  Z2 quotes  Z3 backslashes  Z4 spaces
TEXT ·jsonText(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX
	VMOVDQU64 jsonEscapes<>+0x00(SB), Z0
	VMOVDQU64 jsonEscapes<>+0x40(SB), Z1
	MOVL $'"', AX
	VPBROADCASTB AX, Z2
	MOVL $'\\', AX
	VPBROADCASTB AX, Z3
	MOVL $' ', AX
	VPBROADCASTB AX, Z4
	XORL R8, R8
	XORL R9, R9
	XORL R10, R10
	XORL DX, DX
	MOVQ $0xaaaaaaaaaaaaaaaa, R11

block:
	VMOVDQU64 (SI)(R8*1), Z5
	VPCMPEQB Z3, Z5, K2     // backslashes
	VPCMPEQB Z2, Z5, K1     // quotes
	VPCMPUB $1, Z4, Z5, K3  // less than a space: controls
	KORQ K1, K3, K3
	KMOVQ K2, BX

	// Of a run of backslashes each second is escaped, and what follows a run of odd
	// length. Adding carries through a run; runs that begin at odd bits and at even ones are told
	// apart by what the carry meets behind them (the way simdjson does it).
	ANDNQ BX, DX, R13       // those that are not escaped by the block before
	LEAQ (R13)(R13*1), AX
	ORQ R11, AX
	SUBQ R13, AX
	XORQ R11, AX            // backslashes that begin an escape, and escaped characters that are none
	MOVQ BX, R13
	ORQ DX, R13
	XORQ AX, R13            // R13: escaped characters
	ANDQ AX, BX             // BX: backslashes that begin an escape
	KMOVQ K3, AX
	ANDNQ AX, R13, AX       // AX: quotes and controls that are not escaped
	MOVQ BX, DX
	SHRQ $63, DX

	VPMOVB2M Z5, K4
	KMOVQ K4, R12           // R12: what is not ASCII
	KMOVQ R13, K5
	VMOVDQA64 Z5, Z6
	VPERMI2B Z1, Z0, K5, Z6 // escaped characters become what they stand for,
	VPTESTNMB Z6, Z6, K5, K6 // or 0: not known
	KANDQ K4, K5, K5        // the table is for ASCII
	KORTESTQ K5, K6
	JNZ unknown

known:
	TESTQ AX, AX
	JNZ last
	NOTQ BX
	KMOVQ BX, K7
	VPCOMPRESSB.Z Z6, K7, Z7 // to memory it would be slow
	VMOVDQU64 Z7, (DI)(R9*1)
	POPCNTQ BX, BX
	ADDQ BX, R9
	ORQ R12, R10
	ADDQ $64, R8
	DECQ CX
	JNZ block
	SUBQ DX, R8             // its escaped character has not been read
	JMP done

unknown:
	// The text is read as far as the backslash before it.
	KORQ K5, K6, K6
	KMOVQ K6, R13
	TESTQ $1, R13
	JNZ before
	SHRQ $1, R13
	ORQ R13, AX
	JMP known

before:
	DECQ R8                 // that is the last byte of the block before
	JMP done

last:
	TZCNTQ AX, AX           // the text goes on for so many bytes
	MOVQ $-1, R13
	BZHIQ AX, R13, R13
	ANDNQ R13, BX, BX
	KMOVQ BX, K7
	VPCOMPRESSB.Z Z6, K7, Z7
	VMOVDQU64 Z7, (DI)(R9*1)
	POPCNTQ BX, BX
	ADDQ BX, R9
	ANDQ R13, R12
	ORQ R12, R10
	ADDQ AX, R8

done:
	VZEROUPPER
	MOVQ R8, read+24(FP)
	MOVQ R9, wrote+32(FP)
	MOVQ R10, high+40(FP)
	RET
