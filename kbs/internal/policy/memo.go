package policy

import (
	"strconv"
	"sync"
)

// maxRemembered bounds the decisions about one set of claims.
const maxRemembered = 64

// memo remembers what policies decided about one set of claims, for as long as
// no policy and no reference value changes. A pod fetches the same keys with
// the same token at each restart of a container, and the decision cannot be
// another one: see [program.pure].
type memo struct {
	mu      sync.Mutex
	index   *index // under which all was decided
	allowed map[string]bool
}

// question is the text under which a decision is remembered; "" if it is not.
// Each part stands behind its length, as a path may hold any character.
func (m *memo) question(p judge, r Release) string {
	if m == nil || !p.pure || len(r.Query) > 0 {
		return ""
	}
	var text []byte
	for _, part := range append([]string{p.ref, r.Plugin}, r.Path...) {
		text = strconv.AppendInt(text, int64(len(part)), 10)
		text = append(append(text, ':'), part...)
	}
	return string(text)
}

func (m *memo) find(x *index, question string) (allow, ok bool) {
	if question == "" {
		return false, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.index != x {
		return false, false
	}
	allow, ok = m.allowed[question]
	return allow, ok
}

func (m *memo) remember(x *index, question string, allow bool) {
	if question == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.index != x || len(m.allowed) >= maxRemembered {
		m.index, m.allowed = x, map[string]bool{}
	}
	m.allowed[question] = allow
}
