// Package unxz reads xz (the .xz file format 1.2, 3.1) with a bound on its
// dictionary: the library makes one as large as a header asks for, up to 4 GiB.
package unxz

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

const (
	streamHeader = 12 // bytes; the header of the first block follows, and tells its own size

	filterLZMA2 = 0x21

	// maxDictionary is twice that of xz -9.
	maxDictionary = 128 << 20
)

// ErrDictionary says that a file asks for more memory than any that is honest.
var ErrDictionary = errors.New("xz: a dictionary that is too large, or of no known kind")

// NewReader returns a reader of what r has compressed. The header of the first
// block is bounded; encoders write the same for all blocks of a file.
func NewReader(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	head, err := buffered.Peek(streamHeader + 1)
	if err == nil {
		head, err = buffered.Peek(streamHeader + 4*(int(head[streamHeader])+1))
	}
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	if err := bounded(head[streamHeader:]); err != nil {
		return nil, err
	}
	return xz.ReaderConfig{DictCap: lzma.MinDictCap, SingleStream: true}.NewReader(buffered)
}

// bounded reads the header of a block, which has LZMA2 as its one filter.
func bounded(h []byte) error {
	if h[0] == 0 { // no block at all
		return nil
	}
	flags, at := h[1], 2
	if flags&0x3f != 0 { // more filters, or bits that are reserved
		return ErrDictionary
	}
	for range int(flags>>7) + int(flags>>6&1) { // sizes, which some encoders tell
		for at < len(h) && h[at]&0x80 != 0 {
			at++
		}
		at++
	}
	if at+2 >= len(h) || h[at] != filterLZMA2 || h[at+1] != 1 {
		return ErrDictionary
	}
	size, err := lzma.DecodeDictCap(h[at+2])
	if err != nil || size > maxDictionary {
		return ErrDictionary
	}
	return nil
}
