package kms

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// maxSessions is how many logins are kept. A pod has one or two.
const maxSessions = 8

// sessions keeps services that are logged in. What finds one is the settings and
// the credential itself, so a login serves nobody to whom the broker does not
// give the credential at that moment, and none outlives a credential's change.
type sessions struct {
	mu    sync.Mutex
	held  map[[sha256.Size]byte]*session
	clock uint64
}

type session struct {
	service
	users int
	used  uint64 // when last, by the clock
	gone  bool   // nobody will find it again
}

// identity tells logins apart. Each part has its length before it.
func identity(provider string, settings []byte, credentials []secret.Bytes) (id [sha256.Size]byte) {
	h := sha256.New()
	part := func(b []byte) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(b))) // a hash takes everything
		h.Write(b)
	}
	part([]byte(provider))
	part(settings)
	for _, c := range credentials {
		part(c.Reveal())
	}
	h.Sum(id[:0])
	return id
}

// use returns the session of an identity, made with open if there is none. open
// contacts nobody: services log in when they are first asked.
func (s *sessions) use(id [sha256.Size]byte, open func() (service, error)) (service, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.held[id]
	if one == nil {
		made, err := open()
		if err != nil {
			return nil, nil, err
		}
		one = &session{service: made}
		if s.held == nil {
			s.held = map[[sha256.Size]byte]*session{}
		}
		s.shrink()
		s.held[id] = one
	}
	s.clock++
	one.used = s.clock
	one.users++
	return one, func() { s.done(one) }, nil
}

func (s *sessions) done(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.users--
	one.closeIfGone()
}

// shrink makes room for one more.
func (s *sessions) shrink() {
	for len(s.held) >= maxSessions {
		var oldest [sha256.Size]byte
		first := true
		for id, one := range s.held {
			if first || one.used < s.held[oldest].used {
				oldest, first = id, false
			}
		}
		s.drop(oldest)
	}
}

func (s *sessions) drop(id [sha256.Size]byte) {
	one := s.held[id]
	delete(s.held, id)
	one.gone = true
	one.closeIfGone()
}

func (s *session) closeIfGone() {
	if s.gone && s.users == 0 {
		s.close()
	}
}

func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.held {
		s.drop(id)
	}
}
