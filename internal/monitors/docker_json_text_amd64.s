#include "textflag.h"

DATA jsonBytes<>+0(SB)/1, $'u'
DATA jsonBytes<>+1(SB)/1, $'0'
DATA jsonBytes<>+2(SB)/1, $0xf8 // 0 to 7 are equal in these bits
DATA jsonBytes<>+3(SB)/1, $10   // digits
DATA jsonBytes<>+4(SB)/1, $'a'
DATA jsonBytes<>+5(SB)/1, $6    // letters
DATA jsonBytes<>+6(SB)/1, $0x40 // set in letters, not in digits
DATA jsonBytes<>+7(SB)/1, $0x0f
DATA jsonBytes<>+8(SB)/1, $9
DATA jsonBytes<>+9(SB)/1, $'f'
DATA jsonBytes<>+10(SB)/1, $'d'
DATA jsonBytes<>+11(SB)/1, $0xef // U+FFFD in UTF-8
DATA jsonBytes<>+12(SB)/1, $0xbf
DATA jsonBytes<>+13(SB)/1, $0xbd
GLOBL jsonBytes<>(SB), RODATA|NOPTR, $14

// func jsonText(dst, src *byte, blocks int) (read, wrote int, high uint64)
//
// Of a block of 64 bytes it makes masks, bit i for byte i, says which backslashes begin an
// escape, puts in place of each escaped character what it stands for, and closes the gaps
// that the backslashes leave (VPCOMPRESSB). It branches only if there is an escape of more
// than one character, and where the text ends.
//
//	SI src, R8 read    DI dst, R9 wrote    CX blocks left    R10 high
//	DX 1 if the last byte of the block before is a backslash that begins an escape, else 0
//	R11 the odd bits   Z0, Z1 jsonSimpleEscapes of ASCII   Z2 quotes  Z3 backslashes  Z4 spaces
TEXT ·jsonText(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX
	VMOVDQU64 ·jsonSimpleEscapes+0(SB), Z0
	VMOVDQU64 ·jsonSimpleEscapes+64(SB), Z1
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
	// length. Subtracting goes through a run; runs that begin at odd bits and at even ones
	// are told apart by what it meets behind them (the way simdjson does it).
	ANDNQ BX, DX, R13       // those that are not escaped by the block before
	LEAQ (R13)(R13*1), AX
	ORQ R11, AX
	SUBQ R13, AX
	XORQ R11, AX            // backslashes that begin an escape, and escaped characters that are none
	MOVQ BX, R13
	ORQ DX, R13
	XORQ AX, R13            // R13: escaped characters
	ANDQ AX, BX             // BX: backslashes that begin an escape, to be left out
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
	KORQ K5, K6, K6         // K6: escaped characters that are not known

	// Docker writes <, >, & and controls as \u00XX. Of those that are ASCII and lie in the
	// block as a whole, the last digit becomes the character, and what is before it a gap.
	VPBROADCASTB jsonBytes<>+0(SB), Z8
	VPCMPEQB Z8, Z5, K1
	KANDQ K6, K1, K1        // escaped u,
	VPBROADCASTB jsonBytes<>+1(SB), Z8
	VPCMPEQB Z8, Z5, K2
	KSHIFTRQ $1, K2, K3
	KANDQ K3, K1, K1        // then 0,
	KSHIFTRQ $2, K2, K2
	KANDQ K2, K1, K1        // then 0,
	VPBROADCASTB jsonBytes<>+2(SB), Z9
	VPANDQ Z9, Z5, Z9
	VPCMPEQB Z8, Z9, K2
	KSHIFTRQ $3, K2, K2
	KANDQ K2, K1, K1        // then 0 to 7,
	VPSUBB Z8, Z5, Z8
	VPBROADCASTB jsonBytes<>+3(SB), Z9
	VPCMPUB $1, Z9, Z8, K2
	VPBROADCASTB jsonBytes<>+4(SB), Z8
	VPSUBB Z8, Z5, Z8
	VPBROADCASTB jsonBytes<>+5(SB), Z9
	VPCMPUB $1, Z9, Z8, K3
	KORQ K2, K3, K3
	KSHIFTRQ $4, K3, K3
	KANDQ K3, K1, K1        // then 0 to 9 or a to f. K1: the u of each

	VPBROADCASTB jsonBytes<>+6(SB), Z8
	VPTESTMB Z8, Z5, K2     // a letter's low bits begin at 1 for a
	VPBROADCASTB jsonBytes<>+7(SB), Z10
	VPANDQ Z10, Z5, Z8
	VPBROADCASTB jsonBytes<>+8(SB), Z9
	VPADDB Z9, Z8, K2, Z8
	VMOVDQU64 -1(SI)(R8*1), Z9 // the digit before
	VPANDQ Z10, Z9, Z9
	VPSLLW $4, Z9, Z9       // 7 at most: nothing gets into the next byte
	VPORQ Z9, Z8, Z8
	KSHIFTLQ $4, K1, K2
	VMOVDQU8 Z8, K2, Z6
	KMOVQ K1, R13
	LEAQ (R13)(R13*2), R13
	LEAQ (R13)(R13*4), R13  // of each u, four bits: u, 0, 0 and the first digit
	ORQ R13, BX             // BX: all that is left out

	KANDNQ K6, K1, K6
	KMOVQ K6, R13
	TESTQ R13, R13
	JZ known

	// For a byte that is not UTF-8 Docker writes \ufffd. Of those that lie in the block as a
	// whole, the last three digits become the character.
	VPBROADCASTB jsonBytes<>+0(SB), Z8
	VPCMPEQB Z8, Z5, K1
	KANDQ K6, K1, K1        // escaped u,
	VPBROADCASTB jsonBytes<>+9(SB), Z8
	VPCMPEQB Z8, Z5, K2
	KSHIFTRQ $1, K2, K3
	KANDQ K3, K1, K1        // then f,
	KSHIFTRQ $2, K2, K3
	KANDQ K3, K1, K1        // then f,
	KSHIFTRQ $3, K2, K3
	KANDQ K3, K1, K1        // then f,
	VPBROADCASTB jsonBytes<>+10(SB), Z8
	VPCMPEQB Z8, Z5, K2
	KSHIFTRQ $4, K2, K2
	KANDQ K2, K1, K1        // then d. K1: the u of each
	VPBROADCASTB jsonBytes<>+11(SB), Z8
	KSHIFTLQ $2, K1, K2
	VMOVDQU8 Z8, K2, Z6
	VPBROADCASTB jsonBytes<>+12(SB), Z8
	KSHIFTLQ $3, K1, K2
	VMOVDQU8 Z8, K2, Z6
	VPBROADCASTB jsonBytes<>+13(SB), Z8
	KSHIFTLQ $4, K1, K2
	VMOVDQU8 Z8, K2, Z6
	KMOVQ K1, R13
	LEAQ (R13)(R13*2), R13  // of each u, two bits: u and the first digit
	ORQ R13, BX

	KANDNQ K6, K1, K6
	KMOVQ K6, R13
	TESTQ R13, R13
	JZ known
	// The text is read as far as the backslash before the first of them.
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

DATA jsonUTF8Bytes<>+0(SB)/1, $0xc0
DATA jsonUTF8Bytes<>+1(SB)/1, $0xc2
DATA jsonUTF8Bytes<>+2(SB)/1, $0xe0
DATA jsonUTF8Bytes<>+3(SB)/1, $0xed
DATA jsonUTF8Bytes<>+4(SB)/1, $0xf0
DATA jsonUTF8Bytes<>+5(SB)/1, $0xf4
DATA jsonUTF8Bytes<>+6(SB)/1, $0xf5
DATA jsonUTF8Bytes<>+7(SB)/1, $0x90
DATA jsonUTF8Bytes<>+8(SB)/1, $0xa0
GLOBL jsonUTF8Bytes<>(SB), RODATA|NOPTR, $9

// func jsonUTF8(text *byte, n int) bool
//
// Of a block of 64 bytes it makes masks, bit i for byte i, of the bytes that begin a
// character of two, three, four bytes. Shifted, they say where the others must be, and
// there they must be and nowhere else. What is left are bytes that never occur, and those
// second bytes that would make a character too small, too large or a surrogate (RFC 3629, 4).
//
//	SI text    CX bytes left    DX the others that are due in the next block
//	R8, K0 errors    Z0 the block    Z1 the same, one byte on
TEXT ·jsonUTF8(SB), NOSPLIT, $0-17
	MOVQ text+0(FP), SI
	MOVQ n+8(FP), CX
	VPBROADCASTB jsonUTF8Bytes<>+0(SB), Z16
	VPBROADCASTB jsonUTF8Bytes<>+1(SB), Z17
	VPBROADCASTB jsonUTF8Bytes<>+2(SB), Z18
	VPBROADCASTB jsonUTF8Bytes<>+3(SB), Z19
	VPBROADCASTB jsonUTF8Bytes<>+4(SB), Z20
	VPBROADCASTB jsonUTF8Bytes<>+5(SB), Z21
	VPBROADCASTB jsonUTF8Bytes<>+6(SB), Z22
	VPBROADCASTB jsonUTF8Bytes<>+7(SB), Z23
	VPBROADCASTB jsonUTF8Bytes<>+8(SB), Z24
	XORL DX, DX
	XORL R8, R8
	KXORQ K0, K0, K0

whole:
	CMPQ CX, $64
	JLE rest                // the last byte has none behind it
	VMOVDQU64 (SI), Z0
	VMOVDQU64 1(SI), Z1

check:
	VPMOVB2M Z0, K1
	KMOVQ K1, AX
	MOVQ AX, BX
	ORQ DX, BX
	JZ next                 // ASCII
	VPCMPUB $5, Z16, Z0, K1
	VPCMPUB $5, Z18, Z0, K2
	VPCMPUB $5, Z20, Z0, K3
	KMOVQ K1, BX            // of two bytes or more
	KMOVQ K2, R9            // of three or more
	KMOVQ K3, R10           // of four
	ANDNQ AX, BX, AX        // the others
	LEAQ (BX)(BX*1), R11
	ORQ DX, R11
	LEAQ (R9*4), R12
	ORQ R12, R11
	LEAQ (R10*8), R12
	ORQ R12, R11            // where they must be
	XORQ AX, R11
	ORQ R11, R8
	SHRQ $63, BX
	SHRQ $62, R9
	SHRQ $61, R10
	ORQ R9, BX
	ORQ R10, BX
	MOVQ BX, DX

	VPCMPUB $1, Z17, Z0, K1, K1 // c0, c1
	VPCMPUB $5, Z22, Z0, K2 // f5 and above
	VPCMPEQB Z18, Z0, K3    // e0,
	VPCMPUB $1, Z24, Z1, K3, K3 // and then less than a0
	VPCMPEQB Z19, Z0, K4    // ed,
	VPCMPUB $5, Z24, Z1, K4, K4 // and then not less: a surrogate
	VPCMPEQB Z20, Z0, K5    // f0,
	VPCMPUB $1, Z23, Z1, K5, K5 // and then less than 90
	VPCMPEQB Z21, Z0, K6    // f4,
	VPCMPUB $5, Z23, Z1, K6, K6 // and then not less
	KORQ K1, K2, K1
	KORQ K3, K4, K3
	KORQ K5, K6, K5
	KORQ K1, K3, K1
	KORQ K5, K0, K0
	KORQ K1, K0, K0

next:
	ADDQ $64, SI
	SUBQ $64, CX
	JGT whole
	ORQ DX, R8              // nothing may be due
	VZEROUPPER
	KORTESTQ K0, K0
	SETEQ AX
	TESTQ R8, R8
	SETEQ BX
	ANDB BX, AX
	MOVB AX, ret+16(FP)
	RET

rest:
	MOVQ $-1, AX
	BZHIQ CX, AX, AX        // with 64 it leaves all
	KMOVQ AX, K1
	SHRQ $1, AX
	KMOVQ AX, K2
	VMOVDQU8.Z (SI), K1, Z0
	VMOVDQU8.Z 1(SI), K2, Z1
	JMP check
