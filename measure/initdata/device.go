package initdata

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The block-device form (guest-protocol 5.2): eight bytes of magic, the length
// of the compressed data as a little-endian u64, the data, zeros to the end of
// the sector.
const (
	magic  = "initdata"
	sector = 512 // bytes
)

// ErrNotInitData is returned by [ReadDevice] for a device that does not start
// with the magic, so that a caller can look at the next one.
var ErrNotInitData = errors.New("not an init-data device")

// ReadDevice reads the document from a block device and returns its raw bytes,
// without parsing them. The device comes from the host, so both the compressed
// and the expanded size are limited, and the compressed data must be one gzip
// member that fills its length exactly. What follows on the device is not read.
func ReadDevice(r io.Reader) ([]byte, error) {
	var head [len(magic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, ErrNotInitData
		}
		return nil, fmt.Errorf("read init-data device: %w", err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, ErrNotInitData
	}
	n := binary.LittleEndian.Uint64(head[len(magic):])
	if n > MaxSize {
		return nil, ErrTooLarge
	}
	packed := make([]byte, n)
	if _, err := io.ReadFull(r, packed); err != nil {
		return nil, fmt.Errorf("read init-data device: %w", err)
	}
	return expand(packed)
}

func expand(packed []byte) ([]byte, error) {
	src := bytes.NewReader(packed)
	z, err := gzip.NewReader(src)
	if err != nil {
		return nil, fmt.Errorf("init-data device: %w", err)
	}
	z.Multistream(false)
	raw, err := io.ReadAll(io.LimitReader(z, MaxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("init-data device: %w", err)
	case len(raw) > MaxSize:
		return nil, ErrTooLarge
	case src.Len() != 0:
		return nil, fmt.Errorf("init-data device: %d bytes after the compressed data", src.Len())
	}
	return raw, nil
}

// WriteDevice writes a document in the block-device form, padded to whole
// sectors. The same document always gives the same bytes.
func WriteDevice(w io.Writer, raw []byte) error {
	if len(raw) > MaxSize {
		return ErrTooLarge
	}
	var out bytes.Buffer
	out.WriteString(magic)
	out.Write(make([]byte, 8))
	z := gzip.NewWriter(&out)
	if _, err := z.Write(raw); err != nil {
		return fmt.Errorf("compress init-data: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress init-data: %w", err)
	}
	n := out.Len() - len(magic) - 8
	if n > MaxSize { // text that gzip makes longer would be refused on reading
		return ErrTooLarge
	}
	out.Write(make([]byte, -out.Len()&(sector-1)))
	binary.LittleEndian.PutUint64(out.Bytes()[len(magic):], uint64(n))
	if _, err := w.Write(out.Bytes()); err != nil {
		return fmt.Errorf("write init-data device: %w", err)
	}
	return nil
}
