package strictjson

import (
	"bytes"
	"unicode"
)

// few is how many names are compared one by one before a map pays.
const few = 24

// names are those of one object.
type names struct {
	fold  bool
	first [few][]byte
	n     int
	rest  map[string]bool // all of them, once there are many
}

// add reports whether the name is new.
func (s *names) add(name []byte) bool {
	if s.rest == nil {
		for _, other := range s.first[:s.n] {
			if bytes.Equal(other, name) || s.fold && bytes.EqualFold(other, name) {
				return false
			}
		}
		if s.n < few {
			s.first[s.n] = name
			s.n++
			return true
		}
		s.rest = make(map[string]bool, 4*few)
		for _, other := range s.first {
			s.rest[s.key(other)] = true
		}
	}
	key := s.key(name)
	if s.rest[key] {
		return false
	}
	s.rest[key] = true
	return true
}

// key maps names that encoding/json would take for the same to one text.
func (s *names) key(name []byte) string {
	if !s.fold {
		return string(name)
	}
	out := make([]rune, 0, len(name))
	for _, r := range string(name) {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		out = append(out, least)
	}
	return string(out)
}
