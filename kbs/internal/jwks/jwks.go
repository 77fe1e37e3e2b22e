// Package jwks keeps the public keys of those whose tokens the broker accepts:
// identity providers of administrators, and issuers of attestation tokens.
//
// A set of keys is read where it is published and read again while it is used,
// so that an issuer can rotate its keys and nobody restarts the broker. A key
// id that is not in the set makes it be read early, at most every
// [Config.Retry]: a stranger who invents key ids cannot make the broker ask an
// issuer more often. While an issuer cannot be reached its last keys count for
// [Config.Stale], and then no longer.
package jwks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Defaults of [Config].
const (
	DefaultFresh = 5 * time.Minute
	DefaultRetry = 15 * time.Second
	DefaultStale = time.Hour
)

// ErrNoKey says that the set was read and has no key of this id.
var ErrNoKey = errors.New("jwks: no such key")

// Config says where keys are published, and for how long what was read counts.
type Config struct {
	// URI is a path, file:// or https:// (http:// only for a loopback address):
	// a JWK set, an OIDC issuer whose discovery document names one, or a public
	// key in PEM (SPKI or certificate).
	URI    string
	HTTP   *http.Client // nil means http.DefaultClient with limits of its own
	Now    func() time.Time
	Logger *slog.Logger

	Fresh time.Duration // the set is read again after this time; 0: DefaultFresh
	Retry time.Duration // least time between two readings; 0: DefaultRetry
	Stale time.Duration // what was read counts no longer than this; 0: DefaultStale
}

// Set is the keys that one issuer publishes. It is safe for concurrent use and
// starts nothing: whoever needs a key and finds the set old reads it.
type Set struct {
	Config

	mu      sync.Mutex // held by who reads
	current atomic.Pointer[reading]
}

// reading is what was read, and when. A failed attempt keeps the keys and
// moves tried only.
type reading struct {
	keys  []jose.JSONWebKey
	read  time.Time // zero if it was never read
	tried time.Time
	err   error // of the last attempt
}

// New returns the set published at c.URI. Nothing is read yet.
func New(c Config) (*Set, error) {
	if err := checkURI(c.URI); err != nil {
		return nil, err
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Timeout: timeout, CheckRedirect: CheckRedirect}
	}
	for _, d := range []struct {
		to    *time.Duration
		value time.Duration
	}{{&c.Fresh, DefaultFresh}, {&c.Retry, DefaultRetry}, {&c.Stale, DefaultStale}} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	s := &Set{Config: c}
	s.current.Store(&reading{})
	return s, nil
}

// Find returns the keys that may have made a signature whose header names kid:
// those of that id, and those that have none. A header without kid ("") fits
// every key. ErrNoKey if there is none; any other error means that the keys
// are not known.
func (s *Set) Find(ctx context.Context, kid string) ([]jose.JSONWebKey, error) {
	r := s.latest(ctx, s.Fresh)
	found := r.find(kid)
	if len(found) == 0 {
		r = s.latest(ctx, s.Retry) // perhaps the key is newer than what was read
		found = r.find(kid)
	}
	switch {
	case r.read.IsZero(), s.Now().Sub(r.read) >= s.Stale:
		return nil, fmt.Errorf("jwks: the keys at %s are not known: %w", s.URI, r.err)
	case len(found) == 0:
		return nil, fmt.Errorf("%w: %.64q at %s", ErrNoKey, kid, s.URI)
	}
	return found, nil
}

// latest returns a reading that was tried less than age ago. While one caller
// reads, the others go on with what there is, if there is anything.
func (s *Set) latest(ctx context.Context, age time.Duration) *reading {
	r := s.current.Load()
	if s.young(r, age) {
		return r
	}
	if r.read.IsZero() {
		s.mu.Lock()
	} else if !s.mu.TryLock() {
		return r
	}
	defer s.mu.Unlock()
	if r = s.current.Load(); s.young(r, age) {
		return r // somebody was faster
	}
	next := s.attempt(ctx, r)
	s.current.Store(next)
	return next
}

// young reports whether another attempt is too early.
func (s *Set) young(r *reading, age time.Duration) bool {
	if r.tried.IsZero() {
		return false
	}
	if r.err != nil {
		age = min(age, s.Retry)
	}
	return s.Now().Sub(r.tried) < age
}

func (s *Set) attempt(ctx context.Context, old *reading) *reading {
	// The keys are for everybody: a caller that goes away does not stop it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	keys, err := s.fetch(ctx)
	now := s.Now()
	if err != nil {
		s.Logger.WarnContext(ctx, "public keys cannot be read", slog.String("uri", s.URI), slog.Any("error", err))
		return &reading{keys: old.keys, read: old.read, tried: now, err: err}
	}
	return &reading{keys: keys, read: now, tried: now}
}

func (r *reading) find(kid string) []jose.JSONWebKey {
	var out []jose.JSONWebKey
	for _, k := range r.keys {
		if kid == "" || k.KeyID == "" || k.KeyID == kid {
			out = append(out, k)
		}
	}
	return out
}
