package pull

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// blockSize is that of the buffers in which bytes go from stage to stage. They
// are large enough that handing one over costs nothing beside filling it, and
// few enough that what is in them is still in a core's cache.
const blockSize = 128 << 10

// spareBlocks is how many blocks the rings of all layers have together beyond
// those that each has of its own: 3 MiB.
const spareBlocks = 24

// blocks lends buffers to the rings between stages.
//
// They are mapped, and not on the heap, where the collector would want a third of
// their size beside them, and where a memory limit that they nearly fill makes it
// run all the time. They are given back to the kernel when nothing is pulled any
// more.
type blocks struct {
	mu    sync.Mutex
	users int // pulls under way
	lent  int // beyond what rings have of their own
	free  [][]byte
}

// enter keeps blocks until leave.
func (b *blocks) enter() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users++
}

func (b *blocks) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users--; b.users > 0 {
		return
	}
	for _, block := range b.free {
		unmap(block)
	}
	b.free = nil
}

// own returns a block that a ring has for itself.
func (b *blocks) own() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.take()
}

// spare returns one more, or nil if there is none to spare.
func (b *blocks) spare() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lent >= spareBlocks {
		return nil
	}
	block, err := b.take()
	if err != nil {
		return nil // one can do without
	}
	b.lent++
	return block
}

func (b *blocks) take() ([]byte, error) {
	if n := len(b.free); n > 0 {
		block := b.free[n-1]
		b.free = b.free[:n-1]
		return block, nil
	}
	block, err := unix.Mmap(-1, 0, blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("memory for a layer: %w", err)
	}
	return block, nil
}

// giveBack takes a ring's blocks, of which so many were spare ones. Nobody may
// look at them any more.
func (b *blocks) giveBack(all [][]byte, spare int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent -= spare
	if b.users > 0 {
		b.free = append(b.free, all...)
		return
	}
	for _, block := range all {
		unmap(block)
	}
}

// unmap fails for what was never mapped alone.
func unmap(block []byte) { _ = unix.Munmap(block) }
