// Package known remembers what was found good, in bounded memory: certificate
// chains, which come again with every piece of evidence of the same machine,
// and cost more to check than the evidence itself.
//
// Only what is good is to be remembered, and only what no clock decides: a
// stranger must not fill the memory, and time goes on. Who takes something out
// looks at its dates again.
package known

import (
	"crypto/sha256"
	"sync"
)

// What a verifier remembers of machines that said something before. With its
// claims an event log takes some ten times its size, so large evidence is not
// kept.
const (
	MaxMachines     = 64
	MaxEvidenceSize = 64 << 10 // bytes of JSON
)

// Key is the digest of the bytes that something was made of.
type Key = [sha256.Size]byte

// Of returns the key of some bytes.
func Of(raw []byte) Key { return sha256.Sum256(raw) }

// Set holds at most as many values as it was made for. It is safe for
// concurrent use. Its keys are the bytes that something was made of, or their
// digest, a [Key].
type Set[K comparable, V any] struct {
	mu    sync.Mutex
	most  int
	byKey map[K]V
	order []K // a ring: the oldest makes room
	next  int
}

// New returns a set for at most so many values.
func New[K comparable, V any](most int) *Set[K, V] { return &Set[K, V]{most: most, byKey: map[K]V{}} }

// Find returns the value of a key, if it is remembered.
func (s *Set[K, V]) Find(k K) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.byKey[k]
	return v, ok
}

// Look lets find look a value up by itself: an index expression on a map makes no
// copy of a key that it converts from bytes.
func (s *Set[K, V]) Look(find func(map[K]V) (V, bool)) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return find(s.byKey)
}

// Len returns how many values are remembered.
func (s *Set[K, V]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byKey)
}

// Remember keeps a value, in place of one that was there. The oldest is
// forgotten where there are too many.
func (s *Set[K, V]) Remember(k K, v V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.byKey[k]; there {
		s.byKey[k] = v
		return
	}
	if len(s.order) < s.most {
		s.order = append(s.order, k)
	} else {
		delete(s.byKey, s.order[s.next])
		s.order[s.next] = k
		s.next = (s.next + 1) % s.most
	}
	s.byKey[k] = v
}
