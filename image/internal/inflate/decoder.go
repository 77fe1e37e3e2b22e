package inflate

import (
	"compress/flate"
	"encoding/binary"
	"io"
)

const (
	inputSize  = 64 << 10
	history    = 32 << 10 // how far back a distance reaches
	windowSize = history + 96<<10
	maxMatch   = 258

	// Room that the fast loop needs: two literals, a match, and up to fifteen
	// bytes written behind it. And input: two refills of eight bytes.
	fastRoom  = 2 + maxMatch + 16
	fastInput = 16

	maxEmptyReads = 100
)

type state int

const (
	atBlock state = iota
	inStored
	inHuffman
	atEnd
)

// decoder inflates one DEFLATE stream after the other from src. The zero value
// with a source is ready.
type decoder struct {
	src    io.Reader
	srcErr error // what the source ended with; at its end io.ErrUnexpectedEOF
	read   int64 // bytes taken from the source

	bits    uint64 // the next bits of the input; zero above the lowest nb, between calls
	nb      uint
	ip, end int // in[ip:end] is read and not in bits yet

	state  state
	final  bool // the block is the last one
	stored int  // bytes left of a stored block

	op, out int // win[:op] is written, win[:out] handed out

	lit  *litTable
	dist *distTable

	ownLit  litTable
	ownDist distTable
	lens    lenTable
	widths  [maxLit + maxDist]uint8

	ended bool // the source returned io.EOF

	in  [inputSize]byte
	win [windowSize]byte
}

// restart prepares for the next stream behind the one that ended. All output
// must have been handed out.
func (d *decoder) restart() {
	d.state, d.final, d.op, d.out = atBlock, false, 0, 0
}

// pending returns the output that was not handed out yet.
func (d *decoder) pending() []byte { return d.win[d.out:d.op] }

// corrupt is the error of compress/flate, with the number of bytes consumed.
func (d *decoder) corrupt() error {
	return flate.CorruptInputError(d.read - int64(d.end-d.ip) - int64(d.nb/8))
}

// more decodes until there is no room left in the window, or to the end of the
// stream, atEnd. All output must have been handed out; also with an error there
// may be new output.
func (d *decoder) more() error {
	if d.op > windowSize-fastRoom { // keep what distances may reach
		d.op = copy(d.win[:], d.win[d.op-history:d.op])
		d.out = d.op
	}
	for d.state != atEnd && d.op <= windowSize-fastRoom {
		var err error
		switch d.state {
		case atBlock:
			err = d.block()
		case inStored:
			err = d.copyStored()
		case inHuffman:
			err = d.huffman()
		case atEnd:
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endBlock leaves a block.
func (d *decoder) endBlock() {
	d.state = atBlock
	if d.final {
		// What is left of the last byte belongs to nobody.
		drop := d.nb & 7
		d.bits >>= drop
		d.nb -= drop
		d.state = atEnd
	}
}

// huffman decodes symbols until the block ends or the window is full.
func (d *decoder) huffman() error {
	for d.state == inHuffman && d.op <= windowSize-fastRoom {
		if err := d.fast(); err != nil || d.op > windowSize-fastRoom {
			return err
		}
		if err := d.symbol(); err != nil {
			return err
		}
	}
	return nil
}

// symbol decodes one symbol with care.
func (d *decoder) symbol() error {
	e, err := d.lookup(d.lit[:], litRoot)
	if err != nil {
		return err
	}
	if e&literal != 0 {
		d.win[d.op] = byte(e.base())
		d.op++
		return nil
	}
	if e&special != 0 {
		if e.base() == 0 {
			return d.corrupt()
		}
		d.endBlock()
		return nil
	}
	length, err := d.extra(e)
	if err != nil {
		return err
	}
	if e, err = d.lookup(d.dist[:], distRoot); err != nil {
		return err
	}
	if e&special != 0 {
		return d.corrupt()
	}
	distance, err := d.extra(e)
	if err != nil {
		return err
	}
	if distance > d.op {
		return d.corrupt()
	}
	for i := d.op; i < d.op+length; i++ {
		d.win[i] = d.win[i-distance]
	}
	d.op += length
	return nil
}

// lookup takes the next code and returns its entry. Unlike the fast loop it
// consumes the code alone. What is no code has a width of zero.
func (d *decoder) lookup(table []entry, root int) (entry, error) {
	err := d.need(maxCode) // more than the last codes of a source have
	e := table[d.bits&(1<<root-1)]
	if e&link != 0 {
		e = table[e.second(d.bits, root)]
	}
	width := e.codeBits()
	if width > d.nb {
		return 0, err // bits are missing, so need has failed
	}
	d.bits >>= width
	d.nb -= width
	return e, nil
}

// extra takes the bits that follow the code of e.
func (d *decoder) extra(e entry) (int, error) {
	n, err := d.take(e.width() - e.codeBits())
	return e.base() + n, err
}

// take takes n bits.
func (d *decoder) take(n uint) (int, error) {
	if err := d.need(n); err != nil {
		return 0, err
	}
	v := d.bits & (1<<n - 1)
	d.bits >>= n
	d.nb -= n
	return int(v), nil
}

// need fetches input until at least n bits are at hand, n <= 56. If the source
// ends or fails before, all that is left is at hand.
func (d *decoder) need(n uint) error {
	for d.nb < n {
		if d.ip == d.end {
			if err := d.fetch(); err != nil {
				return err
			}
		}
		d.bits |= uint64(d.in[d.ip]) << d.nb
		d.ip++
		d.nb += 8
	}
	return nil
}

// fetch reads from the source, once if that gives anything. The input must be
// used up. At the source's end it returns io.ErrUnexpectedEOF.
func (d *decoder) fetch() error {
	d.ip, d.end = 0, 0
	for range maxEmptyReads {
		if d.srcErr != nil {
			return d.srcErr
		}
		n, err := d.src.Read(d.in[:])
		if err == io.EOF {
			d.ended, err = true, io.ErrUnexpectedEOF
		}
		d.srcErr = err
		if n > 0 {
			d.end = n
			d.read += int64(n)
			return nil
		}
	}
	if d.srcErr == nil {
		d.srcErr = io.ErrNoProgress
	}
	return d.srcErr
}

// atSourceEnd reports whether there is no more input, asking the source if need
// be. Where the source fails instead, the next to ask gets the error.
func (d *decoder) atSourceEnd() bool {
	return d.nb == 0 && d.ip == d.end && d.fetch() != nil && d.ended
}

func load64(b []byte) uint64     { return binary.LittleEndian.Uint64(b) }
func store64(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }
