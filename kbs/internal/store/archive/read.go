package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// maxFrame is what the longest record takes, in bytes.
const maxFrame = 26 + store.MaxKey + store.MaxValue

// Reader reads an archive. What it hands out is to be believed once Next has
// returned io.EOF: only then has the sum been checked.
type Reader struct {
	Header Header
	Counts Counts // so far

	r     *bufio.Reader
	sum   hash.Hash
	lane  int    // of the last floor
	key   string // of the last record
	ended bool
}

// NewReader reads as far as the header.
func NewReader(r io.Reader) (*Reader, error) {
	in := &Reader{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New(), lane: -1}
	start := make([]byte, len(magic)+2)
	if err := in.fill(start); err != nil {
		return nil, err
	}
	if string(start[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it begins with other bytes", ErrDamaged)
	}
	if v := binary.BigEndian.Uint16(start[len(magic):]); v != version {
		return nil, fmt.Errorf("archive: the format is version %d, this program knows %d", v, version)
	}
	kind, b, err := in.frame()
	if err != nil {
		return nil, err
	}
	if kind != 'H' || len(b) < 8 || len(b) > 8+maxProgram {
		return nil, fmt.Errorf("%w: it has no header", ErrDamaged)
	}
	in.Header = Header{Created: time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC(), Program: string(b[8:])}
	return in, nil
}

func (r *Reader) fill(b []byte) error {
	if _, err := io.ReadFull(r.r, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: it is cut off after %d bytes", ErrDamaged, r.Counts.Bytes)
		}
		return err
	}
	r.sum.Write(b) // never fails
	r.Counts.Bytes += int64(len(b))
	return nil
}

// frame reads one frame. It makes room as bytes come, not as the length
// promises.
func (r *Reader) frame() (kind byte, body []byte, err error) {
	var head [5]byte
	if err := r.fill(head[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[1:]))
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", ErrDamaged, n)
	}
	var buf bytes.Buffer
	got, err := io.Copy(&buf, io.LimitReader(r.r, n))
	if err != nil {
		return 0, nil, err
	}
	r.sum.Write(buf.Bytes())
	if r.Counts.Bytes += got; got < n {
		return 0, nil, fmt.Errorf("%w: it is cut off after %d bytes", ErrDamaged, r.Counts.Bytes)
	}
	return head[0], buf.Bytes(), nil
}

// Next returns the next item, or io.EOF after the last, if all was in order.
func (r *Reader) Next() (Item, error) {
	if r.ended {
		return Item{}, io.EOF
	}
	sum := r.sum.Sum(nil)
	kind, b, err := r.frame()
	if err != nil {
		return Item{}, err
	}
	switch kind {
	case 'F':
		return r.floor(b)
	case 'R':
		return r.record(b)
	case 'E':
		if err := r.end(b, sum); err != nil {
			return Item{}, err
		}
		r.ended = true
		return Item{}, io.EOF
	default:
		return Item{}, fmt.Errorf("%w: a frame of unknown kind %#x", ErrDamaged, kind)
	}
}

func (r *Reader) floor(b []byte) (Item, error) {
	if len(b) != 10 || r.Counts.Records > 0 {
		return Item{}, fmt.Errorf("%w: a floor of %d bytes, or out of place", ErrDamaged, len(b))
	}
	lane, v := int(binary.BigEndian.Uint16(b)), int64(binary.BigEndian.Uint64(b[2:]))
	if lane <= r.lane || lane >= group.Lanes || v < 1 {
		return Item{}, fmt.Errorf("%w: lane %d after %d, version %d", ErrDamaged, lane, r.lane, v)
	}
	r.lane = lane
	r.Counts.Floors++
	return Item{Lane: group.Lane(lane), Version: store.Version(v)}, nil
}

func (r *Reader) record(b []byte) (Item, error) {
	if len(b) < 26 || len(b) < 26+int(binary.BigEndian.Uint16(b[24:])) {
		return Item{}, fmt.Errorf("%w: a record of %d bytes", ErrDamaged, len(b))
	}
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) }
	end := 26 + int(binary.BigEndian.Uint16(b[24:]))
	row := group.Row{
		Version: store.Version(number(0)), Modified: number(1), Expires: number(2),
		Key: string(b[26:end]), Value: b[end:],
	}
	if err := store.CheckKey(row.Key); err != nil || row.Key <= r.key || len(row.Value) > store.MaxValue || row.Version < 1 || row.Expires < 0 {
		return Item{}, fmt.Errorf("%w: the record after %q", ErrDamaged, r.key)
	}
	r.key = row.Key
	r.Counts.Records++
	return Item{Row: &row}, nil
}

func (r *Reader) end(b, sum []byte) error {
	if len(b) != 16+sumSize || int64(binary.BigEndian.Uint64(b)) != r.Counts.Floors ||
		int64(binary.BigEndian.Uint64(b[8:])) != r.Counts.Records || !bytes.Equal(b[16:], sum) {
		return fmt.Errorf("%w: its sum is wrong", ErrDamaged)
	}
	if _, err := r.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	return nil
}

// Check reads a whole archive and keeps nothing of it.
func Check(in io.Reader) (Header, Counts, error) {
	r, err := NewReader(in)
	if err != nil {
		return Header{}, Counts{}, err
	}
	for {
		switch _, err := r.Next(); {
		case errors.Is(err, io.EOF):
			return r.Header, r.Counts, nil
		case err != nil:
			return r.Header, r.Counts, err
		}
	}
}

// Restore fills a store with an archive, or leaves it as it was. The records
// in also are put over those of the archive.
func Restore(ctx context.Context, in io.Reader, into Store, replace bool, also ...group.Row) (Counts, error) {
	r, err := NewReader(in)
	if err != nil {
		return Counts{}, err
	}
	own := map[string]bool{}
	for _, row := range also {
		own[row.Key] = true
	}
	err = into.Import(ctx, replace, func() (Item, error) {
		for {
			item, err := r.Next()
			switch {
			case errors.Is(err, io.EOF) && len(also) > 0:
				item, also = Item{Row: &also[0]}, also[1:]
				return item, nil
			case err != nil:
				return Item{}, err
			case item.Row == nil || !own[item.Row.Key]:
				return item, nil
			}
		}
	})
	return r.Counts, err
}
