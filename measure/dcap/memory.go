package dcap

import "sync"

// memory remembers a bounded number of things that were found good and do not
// change: the oldest makes room. What was refused is never remembered, so a
// stranger cannot fill it. Dates are not part of what was found: who takes
// something out of it checks them again. The zero value needs a limit.
type memory[K comparable, V any] struct {
	limit int
	mu    sync.Mutex
	known map[K]V
	order []K // a ring
	next  int
}

func (m *memory[K, V]) find(k K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.known[k]
	return v, ok
}

func (m *memory[K, V]) remember(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.known[k]; there {
		m.known[k] = v
		return
	}
	if m.known == nil {
		m.known = map[K]V{}
	}
	if len(m.order) < m.limit {
		m.order = append(m.order, k)
	} else {
		delete(m.known, m.order[m.next])
		m.order[m.next] = k
		m.next = (m.next + 1) % m.limit
	}
	m.known[k] = v
}
