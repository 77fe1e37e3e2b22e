package sqlite

import (
	"bytes"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// Bounds of what is kept in memory, in bytes: each of two generations, and one
// row.
const (
	maxGeneration = 1 << 20
	maxKept       = 64 << 10
)

// memory keeps the rows that were read lately, as they are after the newest
// commit. A request reads the same few rows as the one before it (which
// policies are in force, where the audit log ends, the resource that every pod
// of a deployment fetches), and one question to SQLite costs as much as a
// signature.
//
// Another process may write to the file. Every commit of anybody raises a
// counter that all processes share (see walIndex), and as long as it says what
// our own last commit made of it, the rows are true: see view.
type memory struct {
	index *walIndex

	mu         sync.RWMutex
	closed     bool
	known      uint32 // the counter while the rows are true
	era        uint64 // of the state that the rows are of: never the same twice
	young, old map[string]*group.Row
	size       int // of young
}

func remember(x *walIndex) *memory {
	return &memory{index: x, known: x.commits(), young: map[string]*group.Row{}}
}

// now returns the era, and whether the rows are true.
func (m *memory) now() (era uint64, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.era, !m.closed && m.index.commits() == m.known
}

// find returns a row of an era, with a value of its own. A row that is nil is
// known to be absent.
func (m *memory) find(key string, era uint64) (row *group.Row, ok bool) {
	m.mu.RLock()
	row, ok = m.young[key]
	var aged bool
	if !ok {
		row, ok = m.old[key]
		aged = ok
	}
	ok = ok && m.era == era
	m.mu.RUnlock()
	if aged && ok {
		m.learn(era, key, row)
	}
	return row, ok
}

// learn keeps a row that was read from the database in an era; nil, that there
// is none.
func (m *memory) learn(era uint64, key string, row *group.Row) {
	if rowSize(key, row) > maxKept {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.era == era && !m.closed {
		m.keep(key, row)
	}
}

// still reports whether nobody has committed since the era began. A snapshot
// that was taken before the question is then of its state.
func (m *memory) still(era uint64) bool {
	now, ok := m.now()
	return ok && now == era
}

func (m *memory) keep(key string, row *group.Row) {
	size := rowSize(key, row)
	if m.size += size; m.size > maxGeneration {
		m.young, m.old, m.size = map[string]*group.Row{}, m.young, size
	}
	m.young[key] = row
}

// rowSize is what a row takes, roughly.
func rowSize(key string, row *group.Row) int {
	if row == nil {
		return 64 + len(key)
	}
	return 160 + 2*len(key) + len(row.Value)
}

// resume is for the writer that has the database's lock. It forgets all if
// another process has written, and returns the era and the counter.
func (m *memory) resume() (era uint64, commits uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.index.commits(); c != m.known {
		m.forget(c)
	}
	return m.era, m.known
}

func (m *memory) forget(commits uint32) {
	m.known, m.size = commits, 0
	m.young, m.old = map[string]*group.Row{}, nil
	m.era++
}

// committed follows our own commit, which began at the given counter. What was
// not known is not kept: most records are written once and read never.
func (m *memory) committed(commits uint32, c group.Changes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = commits + 1
	m.era++
	for _, key := range c.Delete {
		m.replace(key, nil)
	}
	for i := range c.Put {
		m.replace(c.Put[i].Key, &c.Put[i])
	}
}

func (m *memory) replace(key string, row *group.Row) {
	if _, kept := m.young[key]; kept {
		delete(m.young, key)
	} else if _, kept := m.old[key]; !kept {
		return
	}
	delete(m.old, key)
	if rowSize(key, row) <= maxKept {
		m.keep(key, row)
	}
}

func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

// learned keeps a copy of what the database answered.
func (m *memory) learned(era uint64, row group.Row, found bool) {
	if !found {
		m.learn(era, row.Key, nil)
		return
	}
	row.Value = bytes.Clone(row.Value)
	m.learn(era, row.Key, &row)
}

// owned returns a row whose value is the caller's.
func owned(key string, row *group.Row) (group.Row, bool, error) {
	if row == nil {
		return group.Row{Key: key}, false, nil
	}
	out := *row
	out.Value = append([]byte{}, row.Value...)
	return out, true, nil
}
