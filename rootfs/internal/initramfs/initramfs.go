// Package initramfs packs a tree as the kernel unpacks it at its start, and
// reads such a file again: one cpio archive, compressed.
//
// LZ4 is the default because it is what a machine waits for: it unpacks several
// times as fast as zstd, for a third more to store and to measure.
package initramfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/cpio"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// MaxUnpacked is the largest archive that is read, in bytes.
const MaxUnpacked = 2 << 30

// A Compression is one that kernels unpack.
type Compression string

// Compressions. Which of them a kernel has, its configuration says (CONFIG_RD_LZ4, CONFIG_RD_ZSTD).
const (
	LZ4  Compression = "lz4"
	Zstd Compression = "zstd"
)

// What the files begin with: of LZ4 the older format is the only one that
// kernels read (lz4_Frame_format.md, "Legacy frame"; Linux, lib/decompress_unlz4.c).
const (
	magicLZ4  = 0x184c2102
	magicZstd = 0xfd2fb528
)

// maxWindow is the largest window of zstd that is read, in bytes.
const maxWindow = 64 << 20

// Write packs the tree. The same tree and compression give the same bytes: the
// encoders run alone, as what they write depends on how work is shared.
func Write(t *tree.Tree, c Compression) ([]byte, error) {
	var b bytes.Buffer
	z, err := c.writer(&b)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(cpio.Write(z, t), z.Close()); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	if c == LZ4 {
		end(&b)
	}
	return b.Bytes(), nil
}

func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	switch c {
	case LZ4:
		z := lz4.NewWriter(w)
		return z, z.Apply(lz4.LegacyOption(true), lz4.ConcurrencyOption(1), lz4.CompressionLevelOption(lz4.Level9))
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(8<<20))
	}
	return nil, fmt.Errorf("%q is no compression of an initramfs: want lz4 or zstd", c)
}

// end writes a block of no bytes, at which the kernel stops, up to a multiple of
// four: the format has no end of its own, and what a boot loader puts behind the
// file (another archive) would be taken for a block.
func end(b *bytes.Buffer) {
	b.Write(make([]byte, 4+(-b.Len()&3)))
}

// Read returns the tree in a file that Write made.
func Read(packed []byte) (*tree.Tree, error) {
	if len(packed) < 4 {
		return nil, errors.New("initramfs: too short")
	}
	var raw []byte
	var err error
	switch binary.LittleEndian.Uint32(packed) {
	case magicLZ4:
		raw, err = readLZ4(packed)
	case magicZstd:
		raw, err = readZstd(packed)
	default:
		return nil, fmt.Errorf("initramfs: neither LZ4 nor zstd: it begins with %x", packed[:4])
	}
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return cpio.Read(raw)
}

func readZstd(packed []byte) ([]byte, error) {
	z, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	raw, err := io.ReadAll(io.LimitReader(z, MaxUnpacked+1))
	if err == nil && len(raw) > MaxUnpacked {
		err = errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return raw, nil
}

var errTooLarge = fmt.Errorf("more than %d bytes", MaxUnpacked)

// blockSize is what a block of the older format unpacks to, but for the last.
const blockSize = 8 << 20

// readLZ4 reads block by block, as strictly as a kernel: lengths, then the zeros
// of end, and nothing behind them.
func readLZ4(packed []byte) ([]byte, error) {
	var raw []byte
	block := make([]byte, blockSize)
	for rest := packed[4:]; ; {
		if len(rest) < 4 {
			return nil, errors.New("lz4: no end")
		}
		n := binary.LittleEndian.Uint32(rest)
		rest = rest[4:]
		if n == 0 {
			if len(rest) > 3 || len(bytes.Trim(rest, "\x00")) > 0 {
				return nil, errors.New("lz4: something behind the end")
			}
			return raw, nil
		}
		if uint64(n) > uint64(len(rest)) {
			return nil, errors.New("lz4: cut short")
		}
		size, err := lz4.UncompressBlock(rest[:n], block)
		if err != nil {
			return nil, fmt.Errorf("lz4: %w", err)
		}
		if len(raw)+size > MaxUnpacked {
			return nil, fmt.Errorf("lz4: %w", errTooLarge)
		}
		raw, rest = append(raw, block[:size]...), rest[n:]
	}
}
