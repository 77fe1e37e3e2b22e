package pull

import (
	"errors"
	"io"
	"sync"
)

// A ring has aheadBuffers of aheadSize bytes, whatever passes through it. They
// are large enough that handing one over costs nothing beside filling it, and
// few enough that what is in them is still in a core's cache.
const (
	aheadBuffers = 4
	aheadSize    = 128 << 10
)

var aheadPool = sync.Pool{New: func() any { return new([aheadSize]byte) }} //nolint:gochecknoglobals // memory that layers hand on to each other

// ahead reads a source in a goroutine of its own, a few buffers ahead of whoever
// reads it, so that two stages of one layer run on two cores. What it gives,
// errors too, is what the source gives.
type ahead struct {
	filled chan filled
	free   chan *[aheadSize]byte
	stop   chan struct{} // closed: nobody reads any more
	done   chan struct{} // closed: the goroutine has ended

	now  filled
	rest []byte // of now
}

type filled struct {
	buf *[aheadSize]byte
	n   int
	err error // after the n bytes
}

// readAhead starts to read. Whoever calls it owes a close.
func readAhead(src io.Reader) *ahead {
	a := &ahead{
		filled: make(chan filled, aheadBuffers), free: make(chan *[aheadSize]byte, aheadBuffers),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for range aheadBuffers {
		a.free <- aheadPool.Get().(*[aheadSize]byte) //nolint:forcetypeassert // nothing else is put there
	}
	go a.run(src)
	return a
}

func (a *ahead) run(src io.Reader) {
	defer close(a.done)
	for {
		var f filled
		select {
		case f.buf = <-a.free:
		case <-a.stop:
			return
		}
		for f.err == nil && f.n < aheadSize && !a.stopped() {
			var n int
			n, f.err = src.Read(f.buf[f.n:])
			f.n += n
		}
		a.filled <- f // there is room for all buffers
		if f.err != nil {
			return
		}
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
		if a.now.buf != nil {
			a.free <- a.now.buf
		}
		a.now = <-a.filled
		a.rest = a.now.buf[:a.now.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close ends the goroutine, after the read that it is in, and waits for it. What
// it had read is lost. Afterwards the source is the caller's again; nobody may
// read from a any more.
func (a *ahead) close() {
	close(a.stop)
	<-a.done
	if a.now.buf != nil {
		aheadPool.Put(a.now.buf)
	}
	for range aheadBuffers {
		select {
		case b := <-a.free:
			aheadPool.Put(b)
		case f := <-a.filled:
			aheadPool.Put(f.buf)
		default:
		}
	}
	a.now, a.rest = filled{err: errClosed}, nil
}

var errClosed = errors.New("read after close")
