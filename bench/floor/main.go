// Command floor is the least that an agent can do, done plainly: read, find line
// ends with IndexByte, unescape, encode for Loki, compress, POST. It watches nothing,
// joins nothing, keeps no position, tries nothing twice, checks nothing. What an agent
// costs is held against it.
//
//	floor -containers DIR -url http://HOST/loki/api/v1/push
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	readBytes  = 256 << 10
	batchBytes = 1 << 20
	tick       = 140 * time.Millisecond
)

func main() {
	dir := flag.String("containers", "", "Docker's directory of containers")
	url := flag.String("url", "", "where to push")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, *dir, *url)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, url string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*-json.log"))
	if err != nil {
		return err
	}
	f := &floor{client: &http.Client{Timeout: time.Minute}, url: url}
	var logs []*source
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck,gocritic // it was only read; all end together
		name := strings.TrimSuffix(filepath.Base(path), "-json.log")
		logs = append(logs, &source{file: file, labels: [2]string{labels(name, "stdout"), labels(name, "stderr")}})
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		for _, l := range logs {
			if err := f.read(ctx, l); err != nil {
				return err
			}
		}
		if err := f.flush(ctx); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func labels(name, stream string) string {
	return `{container_name="` + name + `", stream="` + stream + `"}`
}

// source is a log.
type source struct {
	file   *os.File
	half   []byte // of an entry
	labels [2]string
}

type floor struct {
	client *http.Client
	url    string

	buf     [readBytes]byte
	streams [2][]byte // entries of the log that is read, by stream
	batch   []byte
	packed  []byte

	day   [len("2006-01-02")]byte // that of midnight
	start int64                   // midnight in seconds since 1970
}

// read reads a log to its end.
func (f *floor) read(ctx context.Context, l *source) error {
	for {
		n, err := l.file.Read(f.buf[:])
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return nil
		}
		data := f.buf[:n]
		if len(l.half) > 0 {
			l.half = append(l.half, data...)
			data = l.half
		}
		for {
			end := bytes.IndexByte(data, '\n')
			if end < 0 {
				break
			}
			f.entry(data[:end])
			data = data[end+1:]
		}
		l.half = append(l.half[:0], data...)
		for i, entries := range f.streams {
			if len(entries) == 0 {
				continue
			}
			f.batch = protowire.AppendTag(f.batch, 1, protowire.BytesType)
			f.batch = protowire.AppendVarint(f.batch, uint64(1+protowire.SizeBytes(len(l.labels[i]))+len(entries)))
			f.batch = protowire.AppendTag(f.batch, 1, protowire.BytesType)
			f.batch = protowire.AppendString(f.batch, l.labels[i])
			f.batch = append(f.batch, entries...)
			f.streams[i] = entries[:0]
		}
		if len(f.batch) >= batchBytes {
			if err := f.flush(ctx); err != nil {
				return err
			}
		}
	}
}

const (
	logKey = `{"log":"`
	// What stands between text and time; the fourth letter of the name tells which.
	streamKey = `","stream":"stdout","time":"`
	nameAt    = len(`","stream":"std`)
)

// entry appends one entry of Docker's to those of its stream; others are left out.
func (f *floor) entry(line []byte) {
	if len(line) < len(logKey)+len(streamKey)+2 {
		return
	}
	at := bytes.LastIndexByte(line[:len(line)-2], '"') + 1
	end := at - len(streamKey)
	if end < len(logKey) || string(line[:len(logKey)]) != logKey || string(line[end:end+nameAt]) != streamKey[:nameAt] {
		return
	}
	stream := 0
	if line[end+nameAt] == 'e' {
		stream = 1
	}
	seconds, nanos := f.time(line[at : len(line)-2])
	text := bytes.TrimSuffix(line[len(logKey):end], []byte(`\n`))

	// The length goes before the text and is not known yet: room for the widest.
	e := f.streams[stream]
	e = append(e, 2<<3|2)
	head := len(e)
	e = append(e, 0x80, 0x80, 0x80, 0)
	stamp := protowire.SizeTag(1) + protowire.SizeVarint(uint64(seconds)) + protowire.SizeTag(2) + protowire.SizeVarint(uint64(nanos))
	e = append(e, 1<<3|2, byte(stamp), 1<<3)
	e = protowire.AppendVarint(e, uint64(seconds))
	e = append(e, 2<<3)
	e = protowire.AppendVarint(e, uint64(nanos))
	e = append(e, 2<<3|2)
	textHead := len(e)
	e = append(e, 0x80, 0x80, 0x80, 0)
	e = unescape(e, text)
	widen(e[textHead:], len(e)-textHead-4)
	widen(e[head:], len(e)-head-4)
	f.streams[stream] = e
}

// widen writes n below 2^28 as a varint of four bytes.
func widen(b []byte, n int) {
	b[0], b[1], b[2], b[3] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)|0x80, byte(n>>21)
}

func unescape(dst, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+1 >= len(text) {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		c := text[i+1]
		text = text[i+2:]
		switch c {
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 'u':
			if len(text) >= 4 {
				r, _ := strconv.ParseUint(string(text[:4]), 16, 32)
				dst = utf8.AppendRune(dst, rune(r))
				text = text[4:]
			}
		default:
			dst = append(dst, c)
		}
	}
}

// time reads a time as Docker writes it; the day is mostly that of the time before.
func (f *floor) time(t []byte) (seconds, nanos int64) {
	const clock = "T15:04:05"
	if len(t) < len(f.day)+len(clock)+1 {
		return 0, 0
	}
	if string(t[:len(f.day)]) != string(f.day[:]) {
		day, err := time.Parse(time.DateOnly, string(t[:len(f.day)]))
		if err != nil {
			return 0, 0
		}
		f.start = day.Unix()
		copy(f.day[:], t)
	}
	t = t[len(f.day):]
	two := func(i int) int64 { return int64(t[i]-'0')*10 + int64(t[i+1]-'0') }
	seconds = f.start + two(1)*3600 + two(4)*60 + two(7)
	unit := int64(1e8)
	for _, c := range t[len(clock):] {
		if c >= '0' && c <= '9' {
			nanos += int64(c-'0') * unit
			unit /= 10
		}
	}
	return seconds, nanos
}

// flush pushes what there is.
func (f *floor) flush(ctx context.Context) error {
	if len(f.batch) == 0 {
		return nil
	}
	f.packed = snappy.Encode(f.packed[:cap(f.packed)], f.batch)
	f.batch = f.batch[:0]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, bytes.NewReader(f.packed))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // the status has been read
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the store answered %s", resp.Status)
	}
	return nil
}
