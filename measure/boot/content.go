// Package boot predicts what firmware and kernel of a virtual machine measure
// while they start it: the events that a TPM's registers, and the runtime
// registers of Intel TDX, are made of.
//
// Both kinds of registers come from the same events (UEFI 2.11, 38.4.1), so
// there is one list; package tdx turns it into RTMRs. Every event says which
// input its digest comes from, so that a difference between what was predicted
// and what was measured has a name. What cannot be known is missing with a
// reason, never assumed.
//
// Sources: measure.md b and c, TCG PC Client Platform Firmware Profile 1.06,
// and logs of real boots.
package boot

import (
	"fmt"
	"io"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Content is something that is hashed: bytes, the parts of a PE image that
// Authenticode covers, or digests that are all that is known of it. Each digest
// is computed once, however many events and banks need it. A Content is safe
// for concurrent use.
type Content struct {
	write func(io.Writer) error // nil: only the digests are known
	size  int

	mu   sync.Mutex
	sums map[eventlog.Algorithm][]byte
}

// Bytes is a content at hand. The slice must not be changed afterwards.
func Bytes(b []byte) *Content {
	return &Content{size: len(b), sums: map[eventlog.Algorithm][]byte{}, write: func(w io.Writer) error { _, err := w.Write(b); return err }}
}

// Image is a PE image, which is measured by its Authenticode digest.
func Image(p *efi.PE) *Content {
	return &Content{size: p.Size(), sums: map[eventlog.Algorithm][]byte{}, write: p.Authenticode}
}

// Known is a content of which only digests are known, and its size.
func Known(size int, sums map[eventlog.Algorithm][]byte) *Content {
	return &Content{size: size, sums: sums}
}

// Size is the size in bytes.
func (c *Content) Size() int { return c.size }

// Sum returns the digest by the algorithm.
func (c *Content) Sum(alg eventlog.Algorithm) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sum, ok := c.sums[alg]; ok {
		return sum, nil
	}
	hash, ok := alg.Hash()
	if c.write == nil || !ok {
		return nil, fmt.Errorf("the %s digest is not known", alg)
	}
	h := hash.New()
	if err := c.write(h); err != nil {
		return nil, err
	}
	c.sums[alg] = h.Sum(nil)
	return c.sums[alg], nil
}
