package collateral

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// fetch gets an item from the sources, once for all who wait for it. It goes on
// when they give up, since what it brings is kept.
func (s *Store) fetch(ctx context.Context, n Name) (Item, error) {
	s.mu.Lock()
	f := s.flights[n]
	if f == nil {
		select {
		case <-s.quit:
			s.mu.Unlock()
			return Item{}, errClosed
		default:
		}
		f = &flight{done: make(chan struct{})}
		s.flights[n] = f
		detached := context.WithoutCancel(ctx)
		s.wg.Go(func() { s.fly(detached, n, f) })
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return Item{}, fmt.Errorf("%s: %w", n, ctx.Err())
	case <-f.done:
		return f.item, f.err
	}
}

func (s *Store) fly(ctx context.Context, n Name, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FetchTime)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	s.wg.Go(func() {
		select {
		case <-s.quit:
			cancel()
		case <-stop:
		}
	})
	f.item, f.err = s.ask(ctx, n)
	s.mu.Lock()
	delete(s.flights, n)
	if f.err != nil {
		s.fail(n, f.err)
	}
	s.mu.Unlock()
	close(f.done)
}

// enter waits for a place among the fetches that go on at once.
func (s *Store) enter(ctx context.Context, n Name) (leave func(), err error) {
	gates := []chan struct{}{s.gate}
	if r, _ := n.parse(); r.kind.named() {
		gates = []chan struct{}{s.named, s.gate}
	}
	var have []chan struct{}
	leave = func() {
		for _, g := range have {
			<-g
		}
	}
	for _, g := range gates {
		select {
		case g <- struct{}{}:
			have = append(have, g)
		case <-ctx.Done():
			leave()
			return nil, fmt.Errorf("%s: too much is being fetched: %w", n, ctx.Err())
		}
	}
	return leave, nil
}

// ask looks into the directory, where another process may have put a newer
// edition, then asks the sources, and takes the first answer that is good.
func (s *Store) ask(ctx context.Context, n Name) (Item, error) {
	if e := s.newerOnDisk(n); e != nil {
		return e.item, nil
	}
	leave, err := s.enter(ctx, n)
	if err != nil {
		return Item{}, err
	}
	defer leave()
	var errs []error
	for _, from := range s.cfg.Fetchers {
		i, err := from.Fetch(ctx, n)
		if err == nil {
			i.Name, i.Fetched = n, s.cfg.Now().UTC()
			err = s.accept(i)
		}
		if err == nil {
			s.write(ctx, i)
			return i, nil
		}
		if !errors.Is(err, ErrElsewhere) {
			errs = append(errs, err)
		}
	}
	if errs == nil {
		return Item{}, fmt.Errorf("%s is not at hand, and no source is configured that has it", n)
	}
	return Item{}, fmt.Errorf("%s: %w", n, errors.Join(errs...))
}

// write puts an item on disk. It is in memory, so it serves if that fails.
func (s *Store) write(ctx context.Context, i Item) {
	if err := s.writeFile(i); err != nil {
		s.cfg.Logger.WarnContext(ctx, "collateral is not on disk", slog.String("event_id", "collateral.file"),
			slog.String("name", string(i.Name)), slog.Any("error", err))
	}
}

// newerOnDisk takes an edition from the directory that is newer than the one
// in memory and not due itself.
func (s *Store) newerOnDisk(n Name) *entry {
	if s.cfg.Dir == "" {
		return nil
	}
	e := s.readFile(n)
	if now := s.cfg.Now(); e == nil || !now.Before(e.due) || !now.Before(e.facts.until) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if there := s.entries[n]; there != nil {
		newer := there.facts.olderThan(e.facts)
		again := !e.facts.olderThan(there.facts) && there.due.Before(e.due) // the same, fetched later
		if !newer && !again {
			return nil
		}
	}
	s.keep(e)
	return e
}

// ErrOlder is an edition older than the one at hand.
var ErrOlder = errors.New("older than what is at hand")

// accept takes an item that came in into memory: it must be what it says, hold
// now, and not be older than what is there and holds.
func (s *Store) accept(i Item) error {
	e, err := s.entryOf(i)
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	switch f := e.facts; {
	case !now.Before(f.until):
		return fmt.Errorf("what %s gave ended at %s", i.Source, f.until.UTC().Format(time.RFC3339))
	case now.Add(clockSlack).Before(f.from):
		return fmt.Errorf("what %s gave is from %s, which is to come", i.Source, f.from.UTC().Format(time.RFC3339))
	}
	s.find(i.Name) // in the directory too
	s.mu.Lock()
	defer s.mu.Unlock()
	if there := s.entries[i.Name]; there != nil && now.Before(there.facts.until) && e.facts.olderThan(there.facts) {
		return fmt.Errorf("what %s gave is %w: from %s, and there is one from %s", i.Source, ErrOlder,
			e.facts.from.UTC().Format(time.RFC3339), there.facts.from.UTC().Format(time.RFC3339))
	}
	s.keep(e)
	return nil
}

// clockSlack is how far a vendor's clock may be ahead.
const clockSlack = 5 * time.Minute

func (s *Store) entryOf(i Item) (*entry, error) {
	f, err := s.trust.Load().read(i)
	if err != nil {
		return nil, err
	}
	return &entry{item: i, facts: f, due: s.due(i, f)}, nil
}

// fail remembers that a name is not to be had for now. The caller has the lock.
func (s *Store) fail(n Name, err error) {
	old := s.failures[n]
	wait := min(firstRetry<<min(old.count, 10), lastRetry)
	var u *UnavailableError
	if errors.As(err, &u) {
		wait = max(wait, min(u.RetryAfter, lastRetry))
	}
	if len(s.failures) >= maxFailures {
		clear(s.failures)
	}
	s.failures[n] = failure{err: err, count: old.count + 1, until: s.cfg.Now().Add(wait)}
}
