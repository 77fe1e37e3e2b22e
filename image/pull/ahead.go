package pull

import (
	"errors"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// How many blocks a ring has of its own, and how many it may have with spare
// ones. Stages are uneven: a file of nothing but repetitions is decoded faster than
// it is written, a thousand small ones slower. What is received and decrypted
// needs less room than what is decoded, as it becomes several times that.
const (
	ringBlocks     = 4
	receivedBlocks = 8
	decodedBlocks  = 24
)

// ahead reads a source in a goroutine of its own, a few blocks ahead of whoever
// reads it, so that two stages of one layer run on two cores. What it gives,
// errors too, is what the source gives.
type ahead struct {
	blocks *blocks
	most   int // blocks
	have   int // blocks; the goroutine's own while it runs

	filled chan filled
	seen   chan filled // of which what is done to every byte is done
	free   chan []byte
	stop   chan struct{} // closed: nobody reads any more
	done   chan struct{} // closed: the goroutine has ended

	now  filled
	rest []byte // of now
}

type filled struct {
	block []byte
	n     int
	err   error // after the n bytes
}

// readAhead starts to read, with at most so many blocks. If see is not nil, a
// second goroutine calls it for all bytes, in order, before they can be read.
// Whoever calls it owes a close.
func readAhead(src io.Reader, b *blocks, most int, see func([]byte)) (*ahead, error) {
	a := &ahead{
		blocks: b, most: most, filled: make(chan filled, most), free: make(chan []byte, most),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for a.have < min(ringBlocks, most) {
		block, err := b.own()
		if err != nil {
			a.giveBack(nil)
			return nil, err
		}
		a.free <- block
		a.have++
	}
	a.seen = a.filled
	if see != nil {
		a.seen = make(chan filled, most)
		go a.watch(see)
	}
	go a.run(src)
	return a, nil
}

func (a *ahead) run(src io.Reader) {
	defer close(a.done)
	defer close(a.filled)
	for {
		f := filled{block: a.empty()}
		if f.block == nil {
			return
		}
		for f.err == nil && f.n < blockSize && !a.stopped() {
			var n int
			n, f.err = containedRead(src, f.block[f.n:])
			f.n += n
		}
		a.filled <- f // there is room for all blocks
		if f.err != nil {
			return
		}
	}
}

func (a *ahead) watch(see func([]byte)) {
	defer close(a.seen)
	for f := range a.filled {
		see(f.block[:f.n])
		a.seen <- f
	}
}

// empty waits for a block that may be filled; nil: nobody reads any more.
func (a *ahead) empty() []byte {
	select {
	case block := <-a.free:
		return block
	default:
	}
	if a.have < a.most {
		if block := a.blocks.spare(); block != nil {
			a.have++
			return block
		}
	}
	select {
	case block := <-a.free:
		return block
	case <-a.stop:
		return nil
	}
}

func (a *ahead) stopped() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.block != nil {
			a.free <- a.now.block
		}
		a.now = <-a.seen
		a.rest = a.now.block[:a.now.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close ends the goroutines, after the read that the first is in, and waits for
// them. What was read ahead is lost. Afterwards the source is the caller's again;
// nobody may read from a any more.
func (a *ahead) close() {
	close(a.stop)
	<-a.done
	var all [][]byte
	if a.now.block != nil {
		all = append(all, a.now.block)
	}
	for f := range a.seen {
		all = append(all, f.block)
	}
	a.giveBack(all)
	a.now, a.rest = filled{err: errClosed}, nil
}

// containedRead is one Read, of which a panic is an error: a decoder reads what
// strangers wrote.
func containedRead(r io.Reader, p []byte) (n int, err error) {
	err = fault.Contain(func() (err error) {
		n, err = r.Read(p)
		return err
	})
	return n, err
}

// giveBack returns these blocks and those that are free.
func (a *ahead) giveBack(all [][]byte) {
	for len(all) < a.have {
		all = append(all, <-a.free)
	}
	a.blocks.giveBack(all, max(0, a.have-ringBlocks))
}

var errClosed = errors.New("read after close")
