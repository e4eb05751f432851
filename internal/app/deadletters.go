package app

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/log-capturer/log_capturer/internal/deadletter"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

type entrySource = entry.Source

// deadLetters brings the dispatcher's refusals and the monitor's malformed lines
// into the form of the dead-letter file.
type deadLetters struct {
	log *deadletter.Log

	records atomic.Int64 // refused for good
	atNs    atomic.Int64 // when the last was
}

func (d *deadLetters) health() (h deadHealth) {
	h.records = d.records.Load()
	if ns := d.atNs.Load(); ns != 0 {
		h.at = time.Unix(0, ns)
	}
	return h
}

// Append is dispatch.DeadLetters: durable when it returns nil.
func (d *deadLetters) Append(b *entry.Batch, refusals []entry.Refusal) error {
	records := make([]deadletter.Record, 0, len(refusals))
	refused := 0
	for _, r := range refusals {
		sec, line := &b.Sections[r.Section], &b.Lines[r.Line]
		src, place := sec.Source, sec.Place(line)
		rec := deadletter.Record{
			ContainerID: src.ID, ContainerName: src.Name,
			LineTime: lineTime(line.Time), Reason: r.Reason, Raw: b.Message(line),
			Labels: pairs(src.Labels[line.Class].Pairs()), Metadata: pairs(src.Metadata),
			Partial:  line.Flags&entry.FlagPartial != 0,
			Position: position(src, line, place), Inode: place.Inode,
		}
		rec.Kind = deadletter.Malformed
		if r.Reason != monitors.ReasonMalformed { // else it was never sent: ship_malformed is off
			rec.Kind = deadletter.Refused
			refused++
		}
		if line.Class != entry.ClassMalformed {
			rec.Stream = line.Class.Stream().String()
		}
		records = append(records, rec)
	}
	if err := d.log.Append(records); err != nil {
		return err
	}
	if refused > 0 {
		d.records.Add(int64(refused))
		d.atNs.Store(time.Now().UnixNano())
	}
	return nil
}

// CopyMalformed is monitors.MalformedCopies.
func (d *deadLetters) CopyMalformed(lines []monitors.MalformedLine) {
	records := make([]deadletter.Record, len(lines))
	for i, l := range lines {
		records[i] = deadletter.Record{
			Kind:        deadletter.Malformed,
			ContainerID: l.Source.ID, ContainerName: l.Source.Name,
			LineTime: lineTime(l.Time), Reason: monitors.ReasonMalformed,
			Labels: pairs(l.Source.Labels[entry.ClassMalformed].Pairs()), Metadata: pairs(l.Source.Metadata),
			Position: filePosition(l.Source, l.Place), Inode: l.Place.Inode, Raw: l.Raw,
		}
	}
	d.log.AppendUnsynced(records)
}

// position tells people where a line begins: in its file or, if it was streamed, among
// the entries of its stream; empty if that is not known.
func position(src *entry.Source, line *entry.Line, place entry.Place) string {
	switch {
	case src.Path != "" && place.Inode != 0:
		return filePosition(src, place)
	case src.Path == "" && line.At != 0:
		return lineTime(line.Time).UTC().Format(time.RFC3339Nano) + "#" + strconv.FormatUint(uint64(line.At), 10)
	}
	return ""
}

func filePosition(src *entry.Source, place entry.Place) string {
	return src.Path + "@" + strconv.FormatInt(place.Offset, 10)
}

// pairs gives labels as a record has them.
func pairs(labels []entry.Label) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	m := make(map[string]string, len(labels))
	for _, l := range labels {
		m[l.Name] = l.Value
	}
	return m
}

// lineTime gives a line's time, zero if it has none.
func lineTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
