// Package verity makes hash trees of dm-verity, by which a kernel checks every
// block of a read-only device when it is read (Linux, Documentation/
// admin-guide/device-mapper/verity.rst): version 1, SHA-256, blocks of 4096
// bytes, no superblock. The root hash, the salt and the number of blocks are
// what must be kept safe; data and tree may lie with the host.
package verity

import (
	"crypto/sha256"
	"errors"
	"io"
	"slices"
)

const (
	// BlockSize is that of data and of the tree.
	BlockSize = 4096

	perBlock = BlockSize / sha256.Size

	maxBlocks = 1 << 28 // a TiB, whose first level takes 8 GiB
	maxSalt   = 256     // DM_VERITY_MAX_SALT_SIZE
)

// Hash is a digest of the tree.
type Hash [sha256.Size]byte

// A Builder is a writer that hashes data block by block. It keeps 32 bytes for
// every 4096.
type Builder struct {
	salt   []byte
	blocks []Hash
	part   []byte
}

// NewBuilder returns a Builder with a salt of at most 256 bytes.
func NewBuilder(salt []byte) (*Builder, error) {
	if len(salt) > maxSalt {
		return nil, errors.New("verity: the salt is longer than 256 bytes")
	}
	return &Builder{salt: slices.Clone(salt), part: make([]byte, 0, BlockSize)}, nil
}

// Write takes data.
func (b *Builder) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(b.part) == 0 && len(p) >= BlockSize {
			b.blocks = append(b.blocks, b.hash(p[:BlockSize]))
			p = p[BlockSize:]
			continue
		}
		k := min(len(p), BlockSize-len(b.part))
		b.part = append(b.part, p[:k]...)
		p = p[k:]
		if len(b.part) == BlockSize {
			b.blocks = append(b.blocks, b.hash(b.part))
			b.part = b.part[:0]
		}
	}
	if len(b.blocks) > maxBlocks {
		return 0, errors.New("verity: more than a TiB of data")
	}
	return n, nil
}

func (b *Builder) hash(block []byte) Hash {
	h := sha256.New()
	_, _ = h.Write(b.salt) // a hash never fails
	_, _ = h.Write(block)
	return Hash(h.Sum(nil))
}

// A Root is what a reader must know from elsewhere.
type Root struct {
	Hash   Hash
	Salt   []byte
	Blocks int64 // of data
}

// Finish writes the tree, the top level first, and returns its root. The data
// must have been whole blocks, one at least.
func (b *Builder) Finish(w io.Writer) (Root, error) {
	if len(b.part) > 0 || len(b.blocks) == 0 {
		return Root{}, errors.New("verity: the data is no whole number of blocks")
	}
	var levels [][]byte // the lowest first
	above := b.blocks
	for len(above) > 1 {
		var level []byte
		var next []Hash
		for part := range slices.Chunk(above, perBlock) {
			block := make([]byte, BlockSize)
			for i, h := range part {
				copy(block[i*sha256.Size:], h[:])
			}
			level = append(level, block...)
			next = append(next, b.hash(block))
		}
		levels = append(levels, level)
		above = next
	}
	for _, level := range slices.Backward(levels) {
		if _, err := w.Write(level); err != nil {
			return Root{}, err
		}
	}
	return Root{Hash: above[0], Salt: b.salt, Blocks: int64(len(b.blocks))}, nil
}
