package collateral

// find looks into memory, and for what is not there into the directory.
func (s *Store) find(n Name) (*entry, failure) {
	s.mu.Lock()
	e, failed := s.entries[n], s.failures[n]
	s.touch(e)
	s.mu.Unlock()
	if e != nil || s.cfg.Dir == "" {
		return e, failed
	}
	if e = s.readFile(n); e == nil {
		return nil, failed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if there := s.entries[n]; there != nil { // fetched in the meantime
		return there, failed
	}
	s.keep(e)
	return e, failed
}

func (s *Store) touch(e *entry) {
	if e != nil {
		s.clock++
		e.used = s.clock
	}
}

// keep puts an entry into memory, in the place of one that is there. The
// caller has the lock.
func (s *Store) keep(e *entry) {
	n := e.item.Name
	if _, there := s.entries[n]; !there && len(s.entries) >= s.cfg.MaxItems {
		s.evict()
	}
	s.entries[n] = e
	s.touch(e)
	delete(s.failures, n)
}

// evict makes room: certificates of chips, of which there may be very many, go
// before the few lists that all evidence needs.
func (s *Store) evict() {
	var victim Name
	var least uint64
	chip := false
	for n, e := range s.entries {
		r, _ := n.parse() // it was parsed when it came
		c := r.kind == kindVCEK
		if victim == "" || c && !chip || c == chip && e.used < least {
			victim, least, chip = n, e.used, c
		}
	}
	delete(s.entries, victim)
}
