package collateral

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
)

// Import takes what was carried here and tells of each item whether it was
// taken. Nothing is taken if one of them is not what it says or was signed by
// nobody who is trusted: then the error says so. An item that has ended, or is
// older than the one at hand, is left out; the second by an error that wraps
// [ErrOlder].
func (s *Store) Import(ctx context.Context, items []Item) ([]Imported, error) {
	for _, i := range items {
		if _, err := s.entryOf(i); err != nil {
			return nil, fmt.Errorf("%s: %w", i.Name, err)
		}
	}
	out := make([]Imported, len(items))
	for n, i := range items {
		i.Fetched = s.cfg.Now().UTC()
		out[n] = Imported{Name: i.Name, Err: s.accept(i)}
		if out[n].Err == nil {
			s.write(ctx, i)
		}
	}
	return out, nil
}

// Imported tells of one item of an import; Err says why it was left out.
type Imported struct {
	Name Name
	Err  error
}

// Items lists what is at hand, certificates of chips included, by name.
func (s *Store) Items() ([]Item, error) {
	names := map[Name]bool{}
	s.mu.Lock()
	for n := range s.entries {
		names[n] = true
	}
	s.mu.Unlock()
	if s.cfg.Dir != "" {
		files, err := os.ReadDir(s.cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("collateral: %w", err)
		}
		for _, f := range files {
			if n, ok := nameOfFile(f.Name()); ok {
				names[n] = true
			}
		}
	}
	var out []Item
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if e, _ := s.find(n); e != nil {
			out = append(out, e.item)
		}
	}
	return out, nil
}
