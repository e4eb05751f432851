package sink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
)

// maxRequestBytes bounds a request, unpacked.
const maxRequestBytes = 256 << 20

var errShort = errors.New("ends too early")

// decoder unpacks and takes apart requests. It is not safe for concurrent use.
type decoder struct {
	unpacked []byte // reused
	zstd     *zstd.Decoder
	gzip     *gzip.Reader
}

func newDecoder() (*decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRequestBytes))
	if err != nil {
		return nil, err
	}
	return &decoder{zstd: z}, nil
}

// each calls f with the time (nanoseconds since 1970) and text of each line of a
// request; the text is valid during the call only.
func (d *decoder) each(r *request, f func(nanos int64, line []byte)) error {
	body, err := d.unpack(r)
	if err != nil {
		return fmt.Errorf("unpack a request to %s: %w", r.protocol, err)
	}
	switch r.protocol {
	case protocolLoki:
		err = eachLoki(body, f)
	case protocolNative:
		err = eachNative(body, f)
	case protocolOTLP:
		err = eachOTLP(body, f)
	default:
		err = errors.New("not known")
	}
	if err != nil {
		return fmt.Errorf("decode a request to %s: %w", r.protocol, err)
	}
	return nil
}

func (d *decoder) unpack(r *request) (body []byte, err error) {
	switch encoding := r.encoding; {
	case r.protocol == protocolLoki:
		n, err := snappy.DecodedLen(r.body)
		if err != nil {
			return nil, err
		}
		if n > maxRequestBytes {
			return nil, fmt.Errorf("%d bytes are too many", n)
		}
		if cap(d.unpacked) < n {
			d.unpacked = make([]byte, n)
		}
		return snappy.Decode(d.unpacked[:n], r.body)
	case encoding == "zstd":
		d.unpacked, err = d.zstd.DecodeAll(r.body, d.unpacked[:0])
		return d.unpacked, err
	case encoding == "gzip":
		return d.gunzip(r.body)
	case encoding == "":
		return r.body, nil
	default:
		return nil, fmt.Errorf("content encoding %q is not known", encoding)
	}
}

func (d *decoder) gunzip(body []byte) ([]byte, error) {
	in := bytes.NewReader(body)
	if d.gzip == nil {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		d.gzip = z
	} else if err := d.gzip.Reset(in); err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(d.unpacked[:0])
	_, err := out.ReadFrom(io.LimitReader(d.gzip, maxRequestBytes))
	d.unpacked = out.Bytes()
	return d.unpacked, err
}

// fields calls f with each field of a protobuf message; of a number or fixed64
// value holds it, else data.
func fields(b []byte, f func(num protowire.Number, value uint64, data []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var value uint64
		var data []byte
		switch typ {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, value, data); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// eachLoki reads Loki's PushRequest: streams (1) with labels (1) and entries (2) of
// a timestamp (1: seconds 1, nanos 2) and a line (2).
func eachLoki(b []byte, f func(int64, []byte)) error {
	return fields(b, func(num protowire.Number, _ uint64, stream []byte) error {
		if num != 1 {
			return nil
		}
		return fields(stream, func(num protowire.Number, _ uint64, entry []byte) error {
			if num != 2 {
				return nil
			}
			var nanos int64
			var line []byte
			err := fields(entry, func(num protowire.Number, _ uint64, data []byte) error {
				switch num {
				case 1:
					return fields(data, func(num protowire.Number, value uint64, _ []byte) error {
						switch num {
						case 1:
							nanos += int64(value) * 1e9
						case 2:
							nanos += int64(value)
						}
						return nil
					})
				case 2:
					line = data
				}
				return nil
			})
			if err == nil {
				f(nanos, line)
			}
			return err
		})
	})
}

// eachOTLP reads an ExportLogsServiceRequest: resource logs (1), scope logs (2),
// log records (2) with a time (1) and a body (5: string 1).
func eachOTLP(b []byte, f func(int64, []byte)) error {
	inside := func(want protowire.Number, next func([]byte) error) func([]byte) error {
		return func(b []byte) error {
			return fields(b, func(num protowire.Number, _ uint64, data []byte) error {
				if num != want {
					return nil
				}
				return next(data)
			})
		}
	}
	record := func(b []byte) error {
		var nanos int64
		var line []byte
		err := fields(b, func(num protowire.Number, value uint64, data []byte) error {
			switch num {
			case 1:
				nanos = int64(value)
			case 5:
				return fields(data, func(num protowire.Number, _ uint64, text []byte) error {
					if num == 1 {
						line = text
					}
					return nil
				})
			}
			return nil
		})
		if err == nil {
			f(nanos, line)
		}
		return err
	}
	return inside(1, inside(2, inside(2, record)))(b)
}

// eachNative reads the rows of VictoriaLogs' own protocol: tenant (8 bytes), stream
// tags, time (8 bytes, big endian), and fields, of which _msg is the line; texts and
// their number are preceded by varints.
func eachNative(b []byte, f func(int64, []byte)) error {
	text := func() (t []byte, ok bool) {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return nil, false
		}
		t, b = b[k:k+int(n)], b[k+int(n):]
		return t, true
	}
	for len(b) > 0 {
		if len(b) < 8 {
			return errShort
		}
		b = b[8:]
		if _, ok := text(); !ok || len(b) < 8 {
			return errShort
		}
		nanos := int64(binary.BigEndian.Uint64(b))
		b = b[8:]
		n, k := binary.Uvarint(b)
		if k <= 0 {
			return errShort
		}
		b = b[k:]
		var line []byte
		for range n {
			name, ok := text()
			if !ok {
				return errShort
			}
			value, ok := text()
			if !ok {
				return errShort
			}
			// The message's name may be left out.
			if len(name) == 0 || string(name) == "_msg" {
				line = value
			}
		}
		f(nanos, line)
	}
	return nil
}
