package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math"
)

// Write writes a snapshot of the store.
func Write(ctx context.Context, w io.Writer, h Header, from Store) (Counts, error) {
	out := newWriter(w)
	err := out.header(h)
	if err == nil {
		err = from.Export(ctx, out.item)
	}
	if err == nil {
		err = out.end()
	}
	return out.counts, err
}

type writer struct {
	w      *bufio.Writer
	sum    hash.Hash
	counts Counts
	frame  []byte // reused
}

func newWriter(w io.Writer) *writer {
	return &writer{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
}

func (w *writer) write(b []byte) error {
	w.sum.Write(b) // never fails
	w.counts.Bytes += int64(len(b))
	_, err := w.w.Write(b)
	return err
}

func (w *writer) header(h Header) error {
	if len(h.Program) > maxProgram {
		return fmt.Errorf("archive: the name of the program is longer than %d bytes", maxProgram)
	}
	start := binary.BigEndian.AppendUint16([]byte(magic), version)
	if err := w.write(start); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(w.begin('H'), uint64(h.Created.UnixMicro()))
	return w.finish(append(b, h.Program...))
}

// begin returns a frame without its length; finish adds that.
func (w *writer) begin(kind byte) []byte { return append(w.frame[:0], kind, 0, 0, 0, 0) }

func (w *writer) finish(frame []byte) error {
	w.frame = frame
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-5))
	return w.write(frame)
}

func (w *writer) item(i Item) error {
	if i.Row == nil {
		w.counts.Floors++
		b := binary.BigEndian.AppendUint16(w.begin('F'), uint16(i.Lane))
		return w.finish(binary.BigEndian.AppendUint64(b, uint64(i.Version)))
	}
	r := i.Row
	if len(r.Key) > math.MaxUint16 || len(r.Value) > math.MaxInt32 {
		return fmt.Errorf("archive: the record %q is larger than a store allows", r.Key)
	}
	w.counts.Records++
	b := w.begin('R')
	for _, n := range []int64{int64(r.Version), r.Modified, r.Expires} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(r.Key))), r.Key...)
	return w.finish(append(b, r.Value...))
}

func (w *writer) end() error {
	sum := w.sum.Sum(nil)
	b := binary.BigEndian.AppendUint64(w.begin('E'), uint64(w.counts.Floors))
	b = binary.BigEndian.AppendUint64(b, uint64(w.counts.Records))
	if err := w.finish(append(b, sum...)); err != nil {
		return err
	}
	return w.w.Flush()
}
