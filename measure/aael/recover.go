package aael

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// A note says what is about to be done: with the value of the register it tells
// how far a transaction got.
type note struct {
	offset   uint64 // of the record in the log
	index    int    // register
	expected []byte // its value afterwards
	event    eventlog.RuntimeEvent
}

// The note in the file: magic, u64 offset, u32 register, u16 length and value
// that is expected, the event's text, SHA-256 of all before. Numbers are little
// endian, as in the records.
const (
	noteMagic = "AAELNOTE"
	maxNote   = 1 << 20
)

var errNote = errors.New("the note of an event that was under way cannot be read")

func (n note) marshal() []byte {
	b := []byte(noteMagic)
	b = binary.LittleEndian.AppendUint64(b, n.offset)
	b = binary.LittleEndian.AppendUint32(b, uint32(n.index))         //nolint:gosec // a register's number
	b = binary.LittleEndian.AppendUint16(b, uint16(len(n.expected))) //nolint:gosec // at most 64
	b = append(b, n.expected...)
	b = append(b, n.event.String()...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// parseNote reads a note. It is put in place by renaming it, so one that is not
// whole is somebody else's work.
func parseNote(raw []byte) (n note, err error) {
	const head = len(noteMagic) + 8 + 4 + 2
	if len(raw) < head+sha256.Size || len(raw) > maxNote || string(raw[:len(noteMagic)]) != noteMagic {
		return n, errNote
	}
	body, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return n, fmt.Errorf("%w: wrong checksum", errNote)
	}
	n.offset = binary.LittleEndian.Uint64(body[8:])
	n.index = int(binary.LittleEndian.Uint32(body[16:]))
	size, rest := int(binary.LittleEndian.Uint16(body[20:])), body[head:]
	if size > len(rest) || n.offset > MaxSize {
		return n, errNote
	}
	n.expected = bytes.Clone(rest[:size])
	parts := strings.SplitN(string(rest[size:]), " ", 3)
	if len(parts) != 3 {
		return n, errNote
	}
	n.event = eventlog.RuntimeEvent{Domain: parts[0], Operation: parts[1], Content: parts[2]}
	return n, n.event.Validate()
}

func (l *Log) notePath() string { return l.path + ".pending" }

// writeNote puts the note in place, whole or not at all, and on disk before it
// returns.
func (l *Log) writeNote(n note) error {
	raw := n.marshal()
	if len(raw) > maxNote {
		return fmt.Errorf("an event of %d bytes, at most %d are allowed", len(raw), maxNote)
	}
	tmp := l.notePath() + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, l.notePath()); err != nil {
		return err
	}
	return l.syncDir()
}

func (l *Log) removeNote() error {
	if err := os.Remove(l.notePath()); err != nil {
		return err
	}
	return l.syncDir()
}

func (l *Log) syncDir() error {
	d, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// recover finishes the event of a note, if there is one (guest-protocol 6.4). An
// event that was not extended yet is: whoever asked for it may have been told
// nothing, and a record too many is better than one too few.
func (l *Log) recover(ctx context.Context, f *os.File) error {
	raw, err := readNote(l.notePath())
	if raw == nil || err != nil {
		return err
	}
	n, err := parseNote(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", l.notePath(), err)
	}
	record, digest, err := l.record(n.index, n.event)
	if err != nil {
		return err
	}
	value, err := l.register(ctx, n.index)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if uint64(info.Size()) < n.offset { //nolint:gosec // sizes are not negative
		return fmt.Errorf("%w: it has %d bytes and had %d", ErrDiverged, info.Size(), n.offset)
	}
	switch {
	case bytes.Equal(value, n.expected):
	case bytes.Equal(l.registers.Algorithm().Sum(value, digest), n.expected):
		if err := l.registers.Extend(ctx, n.index, digest); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: register %d holds %x, and neither that nor its extension is %x", ErrDiverged, n.index, value, n.expected)
	}
	return l.finish(f, n, record)
}

func readNote(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, maxNote+1))
	if err == nil && len(raw) == 0 {
		err = errNote
	}
	return raw, err
}

// mend cuts off a record that is not whole and that no note tells of: this
// package leaves none, but a full disk or another agent may. That is right only
// if the register does not know of it.
func (l *Log) mend(ctx context.Context, f *os.File) error {
	raw, err := read(f)
	if err != nil {
		return err
	}
	whole := wholeRecords(raw)
	if whole == len(raw) {
		_, err := eventlog.ParseRuntime(raw)
		return err
	}
	if err := l.leadsToRegisters(ctx, raw[:whole], raw[whole:]); err != nil {
		return fmt.Errorf("its last record is torn: %w", err)
	}
	return errors.Join(f.Truncate(int64(whole)), f.Sync())
}

// leadsToRegisters replays the records over the firmware's log and compares the
// registers that they name, and the one that the torn record names.
func (l *Log) leadsToRegisters(ctx context.Context, records, torn []byte) error {
	a := l.registers.Algorithm()
	events, err := eventlog.ParseRuntime(records)
	if err != nil {
		return err
	}
	registers := map[int]bool{}
	for _, e := range events {
		registers[e.Index] = true
	}
	if len(torn) >= 4 {
		registers[int(binary.LittleEndian.Uint32(torn))] = true
	}
	raw, err := eventlog.Combine(l.firmware, records, a)
	if err != nil {
		return err
	}
	replayed := map[int][]byte{}
	if raw != nil {
		log, err := eventlog.Parse(raw)
		if err != nil {
			return err
		}
		if replayed, err = log.Replay(a); err != nil {
			return err
		}
	}
	for index := range registers {
		value, err := l.register(ctx, index)
		if err != nil {
			return err
		}
		want, extended := replayed[index]
		if !extended {
			want = make([]byte, a.Size())
		}
		if !bytes.Equal(value, want) {
			return fmt.Errorf("%w: register %d holds %x, the log leads to %x", ErrDiverged, index, value, want)
		}
	}
	return nil
}

// wholeRecords returns how many bytes at the start are records of one digest
// that are not cut. What they say is not looked at.
func wholeRecords(raw []byte) (n int) {
	for {
		rest := raw[n:]
		if len(rest) < 14 {
			return n
		}
		size := eventlog.Algorithm(binary.LittleEndian.Uint16(rest[12:])).Size()
		if binary.LittleEndian.Uint32(rest[8:]) != 1 || size == 0 || len(rest) < 14+size+4 {
			return n
		}
		data := uint64(binary.LittleEndian.Uint32(rest[14+size:]))
		if end := uint64(14+size+4) + data; end <= uint64(len(rest)) {
			n += int(end) //nolint:gosec // within rest
			continue
		}
		return n
	}
}
