package store

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// A LayerInfo describes a complete layer.
type LayerInfo struct {
	Name       string // of its directory: the digest, and the identity of the key if it was encrypted
	Usage      Usage
	References int // of images that are held, and of mounts
}

// Layers lists the complete layers in the order in which their removal would be
// missed least: those that were used longest ago come first.
func (s *Store) Layers() []LayerInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []LayerInfo
	for _, name := range s.byAge() {
		l := s.layers[name]
		list = append(list, LayerInfo{Name: name, Usage: l.usage, References: l.refs})
	}
	return list
}

func (s *Store) byAge() []string {
	return slices.SortedFunc(maps.Keys(s.layers), func(a, b string) int {
		return cmp.Compare(s.layers[a].used, s.layers[b].used)
	})
}

// GC removes every layer that nothing refers to and returns their number.
func (s *Store) GC() (int, error) {
	return s.collect(func(Usage) bool { return true })
}

// Collect removes layers that nothing refers to, the least recently used first,
// until the rest is within the budget, and returns their number. A member of the
// budget that is zero allows anything. Layers in use stay, whatever they occupy.
func (s *Store) Collect(budget Usage) (int, error) {
	return s.collect(func(now Usage) bool { return now.exceeds(budget) })
}

// collect removes unused layers while more says so of what then is left. It
// also tries again what could not be removed before.
func (s *Store) collect(more func(Usage) bool) (int, error) {
	s.mu.Lock()
	now, n := s.usage(), 0
	for _, u := range s.graves {
		now = now.Sub(u)
	}
	var errs []error
	for _, name := range s.byAge() {
		l := s.layers[name]
		if l.refs > 0 {
			continue
		}
		if !more(now) {
			break
		}
		if err := s.bury(name); err != nil {
			errs = append(errs, err)
			continue
		}
		now, n = now.Sub(l.usage), n+1
	}
	s.mu.Unlock()
	return n, errors.Join(append(errs, s.sweep())...)
}

// bury moves a layer out of sight, where the next sweep removes it, so that a
// half-removed layer is never found under its name. The caller holds the lock.
func (s *Store) bury(name string) error {
	if err := s.hide(name); err != nil {
		return err
	}
	grave, err := os.MkdirTemp(s.path(stagingDir), "gone-")
	if err != nil {
		return err
	}
	if err := os.Rename(s.path(layersDir, name), filepath.Join(grave, "layer")); err != nil {
		_ = os.Remove(grave)
		return err
	}
	if l := s.layers[name]; l != nil {
		s.graves[grave] = l.usage
	} else {
		s.graves[grave] = Usage{}
	}
	delete(s.layers, name)
	return nil
}

// sweep removes what was buried. It takes its time without holding others up.
func (s *Store) sweep() error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	graves := slices.Sorted(maps.Keys(s.graves))
	s.mu.Unlock()
	var errs []error
	for _, grave := range graves {
		if err := destroy(grave); err != nil {
			errs = append(errs, err)
			continue
		}
		s.mu.Lock()
		delete(s.graves, grave)
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// keepWithin collects down to the budget that the store was opened with. What
// cannot be removed stays in what Usage says, and is tried again with the next
// collection: it is no reason to refuse the layer that came.
func (s *Store) keepWithin() {
	if s.budget != (Usage{}) {
		_, _ = s.Collect(s.budget)
	}
}
