package collateral

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A Fetcher gets collateral from somewhere.
type Fetcher interface {
	// Fetch returns the item of a name, not checked yet. It returns an error
	// that wraps ErrElsewhere for names that it has nothing to do with, one that
	// wraps ErrAbsent if it answers that there is no such thing, and an
	// *UnavailableError if it may have it later.
	Fetch(ctx context.Context, n Name) (Item, error)
}

// Errors of a Fetcher.
var (
	ErrElsewhere = errors.New("not served here")
	ErrAbsent    = errors.New("there is no such collateral")
)

// UnavailableError is a source that may have something later.
type UnavailableError struct {
	RetryAfter time.Duration // when the source said so, otherwise 0
	Err        error
}

// Error returns the reason.
func (e *UnavailableError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Config says what a [Store] does. The zero value has no source and believes
// nobody.
type Config struct {
	// Dir keeps what was fetched, one file for each item, mode 0600. Empty means
	// that it is kept in memory alone.
	Dir string
	// Fetchers are asked in this order until one has what is wanted.
	Fetchers []Fetcher
	// Authorities may have signed what is kept: see snp.Authorities and
	// dcap.Authorities.
	Authorities []*x509.Certificate
	// Grace is how long something is served after its end, while nothing newer
	// is to be had. Verifiers have a grace of their own, which must be the same.
	Grace time.Duration
	// RefreshEvery bounds the age of lists and documents; 0 means a day. They
	// are renewed after two thirds of their life, if that is sooner.
	RefreshEvery time.Duration
	// FetchTime bounds one fetch with all its retries; 0 means a minute.
	FetchTime time.Duration
	// MaxItems bounds what is kept; 0 means 32768. The least used makes room.
	MaxItems int
	Now      func() time.Time // nil means time.Now
	Logger   *slog.Logger     // nil means none
}

// Bounds of what is remembered and of what goes on at once. A stranger can
// name platforms and chips without end, but not the lists that all evidence
// needs; so those have places that the others cannot take.
const (
	maxFailures = 4096
	maxFetches  = 8
	maxNamed    = 6 // of them, for what evidence names
)

// How long a failure is believed before the source is asked again.
const (
	firstRetry = 10 * time.Second
	lastRetry  = 10 * time.Minute
)

// Store finds collateral. It is safe for concurrent use. Close waits for what
// it began.
type Store struct {
	source
	cfg   Config
	trust atomic.Pointer[authorities]
	gate  chan struct{} // see maxFetches
	named chan struct{} // see maxNamed
	poke  chan struct{} // tells Run that something is due
	quit  chan struct{}
	wg    sync.WaitGroup

	running atomic.Bool // Run renews
	closing sync.Once

	mu       sync.Mutex
	entries  map[Name]*entry
	failures map[Name]failure
	flights  map[Name]*flight
	clock    uint64 // counts uses
	chips    int    // files of chips' certificates
}

// entry is an item at hand. Only used changes.
type entry struct {
	item  Item
	facts facts
	due   time.Time // when it should be renewed
	used  uint64
}

// failure is a fetch that did not bring anything usable.
type failure struct {
	err   error
	count int
	until time.Time // not asked again before
}

// flight is one fetch that several may wait for.
type flight struct {
	done chan struct{}
	item Item
	err  error
}

// Open makes a store and reads the directory, if there is one, but for the
// certificates of chips, which are read when they are asked for.
func Open(c Config) (*Store, error) {
	switch {
	case len(c.Authorities) == 0:
		return nil, errors.New("collateral: nobody is trusted to have signed it")
	case c.Grace < 0:
		return nil, errors.New("collateral: the grace is negative")
	}
	if c.RefreshEvery == 0 {
		c.RefreshEvery = 24 * time.Hour
	}
	if c.FetchTime == 0 {
		c.FetchTime = time.Minute
	}
	if c.MaxItems == 0 {
		c.MaxItems = 1 << 15
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg: c, gate: make(chan struct{}, maxFetches), named: make(chan struct{}, maxNamed),
		poke: make(chan struct{}, 1), quit: make(chan struct{}),
		entries: map[Name]*entry{}, failures: map[Name]failure{}, flights: map[Name]*flight{},
	}
	s.source = source{s.all}
	s.Trust(c.Authorities)
	return s, s.readDir()
}

// Trust replaces those who may have signed what comes in from now on. What is
// at hand stays: who uses it checks it anyway.
func (s *Store) Trust(all []*x509.Certificate) {
	a := authorities(all)
	s.trust.Store(&a)
}

// Close ends fetches that are under way and waits for them.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.mu.Lock() // no fetch begins after this
		close(s.quit)
		s.mu.Unlock()
	})
	s.wg.Wait()
	return nil
}

var errClosed = errors.New("collateral: the store is closed")

// Get returns an item that holds now, or within the grace. It fetches it if it
// is not at hand, together with all others who ask.
func (s *Store) Get(ctx context.Context, n Name) (Item, error) {
	if _, err := n.parse(); err != nil {
		return Item{}, err
	}
	now := s.cfg.Now()
	e, failed := s.find(n)
	if e != nil && now.Before(e.facts.until) {
		if !now.Before(e.due) {
			s.wake()
		}
		return e.item, nil
	}
	stale := e != nil && now.Before(e.facts.until.Add(s.cfg.Grace))
	if stale && s.running.Load() {
		s.wake()
		return e.item, nil
	}
	err := failed.err
	if err == nil || !now.Before(failed.until) {
		var i Item
		if i, err = s.fetch(ctx, n); err == nil {
			return i, nil
		}
	}
	if stale {
		return e.item, nil
	}
	if e != nil {
		err = fmt.Errorf("%s ended at %s, and no newer one was to be had: %w", n, e.facts.until.UTC().Format(time.RFC3339), err)
	}
	return Item{}, err
}

// Renew fetches an item, also one that is at hand.
func (s *Store) Renew(ctx context.Context, n Name) (Item, error) {
	if _, err := n.parse(); err != nil {
		return Item{}, err
	}
	return s.fetch(ctx, n)
}

// all gets several items at once.
func (s *Store) all(ctx context.Context, names ...Name) ([]Item, error) {
	items, errs := make([]Item, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		if e, _ := s.find(n); e != nil && s.cfg.Now().Before(e.facts.until) {
			items[i], errs[i] = s.Get(ctx, n) // at hand: no goroutine
			continue
		}
		wg.Go(func() { items[i], errs[i] = s.Get(ctx, n) })
	}
	wg.Wait()
	return items, errors.Join(errs...)
}
