// Package known remembers what was found good, in bounded memory: certificate
// chains, which come again with every piece of evidence of the same machine,
// and cost more to check than the evidence itself.
//
// Only what is good is to be remembered, and only what no clock decides: a
// stranger must not fill the memory, and time goes on.
package known

import (
	"crypto/sha256"
	"sync"
)

// Key is the digest of the bytes that something was made of.
type Key = [sha256.Size]byte

// Of returns the key of some bytes.
func Of(raw []byte) Key { return sha256.Sum256(raw) }

// Set holds at most as many values as it was made for. It is safe for
// concurrent use.
type Set[V any] struct {
	mu    sync.Mutex
	most  int
	byKey map[Key]V
	order []Key // a ring: the oldest makes room
	next  int
}

// New returns a set for at most so many values.
func New[V any](most int) *Set[V] { return &Set[V]{most: most, byKey: map[Key]V{}} }

// Find returns the value of a key, if it is remembered.
func (s *Set[V]) Find(k Key) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.byKey[k]
	return v, ok
}

// Remember keeps a value. The oldest is forgotten where there are too many.
func (s *Set[V]) Remember(k Key, v V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.byKey[k]; there {
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
