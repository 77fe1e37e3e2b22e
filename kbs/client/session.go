package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// renewEarly is how long before its expiry a token is no longer used, so that
// it does not expire on the way. Short-lived tokens keep four fifths of their
// time.
const renewEarly = 30 * time.Second

// A session is what one handshake gave. It is immutable.
type session struct {
	token   secret.Bytes
	key     *jwe.PrivateKey
	expires time.Time
	renewAt time.Time // not used for new requests from then on
}

// newSession counts the token's life from now on, if the token says how long it
// is: the host sets the guest's wall clock, and one that is wrong must neither
// keep a dead token in use nor make every request attest anew. From now on only
// time that passes counts, which the host cannot set back (now has the reading of
// the monotonic clock).
func newSession(token string, key *jwe.PrivateKey, now time.Time) (*session, error) {
	expires, life, err := tokenExpiry(token)
	if err != nil {
		return nil, err
	}
	if life == 0 {
		life = expires.Sub(now)
	}
	early := min(renewEarly, max(0, life/5))
	return &session{
		token:   secret.New([]byte(token)),
		key:     key,
		expires: expires,
		renewAt: now.Add(life - early),
	}, nil
}

// sessions holds the session in use and lets one caller at a time renew it.
// The renewing caller works under its own context; the others wait and take
// its result, be it a session or a refusal. If it gives up because its own
// context ended, that says nothing about the others: one of them takes over.
type sessions struct {
	open func(context.Context) (*session, error)
	now  func() time.Time

	mu      sync.Mutex
	current *session // nil, or possibly expired
	running *renewal // nil when nobody is renewing
}

// A renewal is written by its leader until done is closed, and only read then.
type renewal struct {
	done      chan struct{}
	session   *session
	err       error
	abandoned bool // the leader's context ended before there was a result
}

// get returns a usable session that is not the given one, which the broker
// has refused (nil if there is none).
func (s *sessions) get(ctx context.Context, refused *session) (*session, error) {
	for {
		s.mu.Lock()
		if cur := s.current; cur != nil && cur != refused && s.now().Before(cur.renewAt) {
			s.mu.Unlock()
			return cur, nil
		}
		r := s.running
		if r == nil {
			r = &renewal{done: make(chan struct{}), abandoned: true}
			s.running = r
			s.mu.Unlock()
			return s.lead(ctx, r)
		}
		s.mu.Unlock()

		select {
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, ctx.Err())
		case <-r.done:
		}
		if !r.abandoned {
			return r.session, r.err
		}
	}
}

// peek returns the session in use, nil if there is none.
func (s *sessions) peek() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *sessions) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = nil
}

func (s *sessions) lead(ctx context.Context, r *renewal) (*session, error) {
	defer func() { // even if an attester panics, nobody may wait for ever
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running = nil
		if r.session != nil {
			s.current = r.session
		}
		close(r.done)
	}()
	r.session, r.err = s.open(ctx)
	r.abandoned = r.err != nil && ctx.Err() != nil
	return r.session, r.err
}

// maxToken is the longest token in bytes. Guests with many devices have tokens
// of 170 KiB (kbs-protocol 20.12).
const maxToken = 512 << 10

// maxLife bounds what a token may say of its own life.
const maxLife = 24 * time.Hour

// tokenExpiry reads the exp claim of a JWT, and how long after its iat claim that
// is, 0 if there is none. The signature is for the broker to verify; the guest
// only wants to know when to come back.
func tokenExpiry(token string) (expires time.Time, life time.Duration, err error) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return time.Time{}, 0, errors.New("the token is not a JWT")
	}
	for _, p := range parts {
		if p == "" || strings.ContainsAny(p, "\r\n") {
			return time.Time{}, 0, errors.New("the token is not a JWT")
		}
		if _, err := base64.RawURLEncoding.DecodeString(p); err != nil {
			return time.Time{}, 0, errors.New("the token is not a JWT")
		}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, 0, errors.New("the token is not a JWT")
	}
	var claims struct {
		Exp *float64 `json:"exp"` // NumericDate may have a fraction (RFC 7519, section 2)
		Iat any      `json:"iat"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp == nil {
		return time.Time{}, 0, errors.New("the token has no exp claim")
	}
	if *claims.Exp < 0 || *claims.Exp > 1<<40 {
		return time.Time{}, 0, errors.New("the token's exp claim is out of range")
	}
	expires = time.Unix(int64(*claims.Exp), 0)
	if iat, ok := claims.Iat.(float64); ok && iat >= 0 && iat < *claims.Exp {
		life = min(maxLife, expires.Sub(time.Unix(int64(iat), 0)))
	}
	return expires, life, nil
}
