package token

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Verifier decides which tokens are good: those of its own issuer, and those
// of issuers that the configuration trusts. It is safe for concurrent use.
type Verifier struct {
	own   *Issuer
	trust *Trust // nil: nobody else
	good  *verdicts
}

// NewVerifier accepts the tokens of an issuer, and those that trust vouches
// for; trust may be nil.
func NewVerifier(own *Issuer, trust *Trust) *Verifier {
	return &Verifier{own: own, trust: trust, good: newVerdicts()}
}

// Verify accepts a token of a trusted issuer that has not expired. The error
// is ErrInvalid with a reason for the operator, or a failure of ours.
func (v *Verifier) Verify(ctx context.Context, text string) (Claims, error) {
	if len(text) > MaxSize {
		return Claims{}, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxSize)
	}
	sum := digest(text)
	if c, ok := v.good.get(ctx, sum, v.own.cfg.Now()); ok {
		return c, nil
	}
	c, trusted, err := v.judge(ctx, text)
	if err != nil {
		return Claims{}, err
	}
	if c.Foreign {
		c.ID = foreignPrefix + hex.EncodeToString(sum[:16])
	}
	c.memo = &memo{}
	v.good.put(&verdict{text: sum, claims: c, trusted: trusted})
	return c, nil
}

// scratch is for [digest]: a token has kilobytes, and comes with every request.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

func digest(text string) [sha256.Size]byte {
	b := scratch.Get().(*[]byte) //nolint:forcetypeassert // all are made above
	*b = append((*b)[:0], text...)
	sum := sha256.Sum256(*b)
	clear(*b)
	scratch.Put(b)
	return sum
}

// foreignPrefix begins the ids that tokens of other issuers have here.
const foreignPrefix = "foreign-"

// IsForeign reports whether an id is that of a token of another issuer.
func IsForeign(id string) bool { return strings.HasPrefix(id, foreignPrefix) }

// judge returns the claims of a token, and for how long its key is trusted.
func (v *Verifier) judge(ctx context.Context, text string) (Claims, func(context.Context) bool, error) {
	jws, err := parseCompact(text)
	if err != nil {
		return Claims{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	keys, kid := v.own.cfg.Keys, jws.header.KeyID
	public, own, err := keys.public(ctx, kid)
	switch {
	case err != nil:
		return Claims{}, nil, err
	case own: // the key is ours, whatever else the header offers
		if jws.header.Algorithm != string(jose.ES256) {
			return Claims{}, nil, fmt.Errorf("%w: signed with %.16q", ErrInvalid, jws.header.Algorithm)
		}
		if err := jws.verify(public); err != nil {
			return Claims{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		c, err := v.ownClaims(jws.payload)
		return c, func(ctx context.Context) bool {
			_, ok, err := keys.public(ctx, kid)
			return ok && err == nil
		}, err
	case v.trust == nil:
		return Claims{}, nil, fmt.Errorf("%w: signed under another key", ErrInvalid)
	}
	trusted, err := v.trust.verify(ctx, jws)
	if err != nil {
		return Claims{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	c, err := v.foreignClaims(jws.payload)
	return c, trusted, err
}

// registered are the claims (RFC 7519) that the broker itself looks at.
type registered struct {
	Issuer    string                     `json:"iss"`
	Expires   *float64                   `json:"exp"`
	NotBefore float64                    `json:"nbf"`
	IssuedAt  float64                    `json:"iat"`
	ID        string                     `json:"jti"`
	Submods   map[string]AppraisalClaims `json:"submods"`
}

func (v *Verifier) ownClaims(payload []byte) (Claims, error) {
	var p registered
	if err := json.Unmarshal(payload, &p); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	now := v.own.cfg.Now()
	if p.Issuer != v.own.cfg.Issuer {
		return Claims{}, fmt.Errorf("%w: issuer %.64q", ErrInvalid, p.Issuer)
	}
	if strings.HasPrefix(p.ID, EvaluatedPrefix) {
		return Claims{}, fmt.Errorf("%w: made for another broker", ErrInvalid)
	}
	if now.Before(moment(p.IssuedAt).Add(-leeway)) {
		return Claims{}, fmt.Errorf("%w: issued in the future", ErrInvalid)
	}
	if err := p.inForce(now); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return Claims{ID: p.ID, Issuer: p.Issuer, Expires: moment(*p.Expires), Raw: payload, Submods: p.Submods}, nil
}

// foreignClaims reads a payload that somebody else wrote: two readers of it
// must see one thing.
func (v *Verifier) foreignClaims(payload []byte) (Claims, error) {
	if err := strictjson.Check(payload); err != nil {
		return Claims{}, fmt.Errorf("%w: payload: %w", ErrInvalid, err)
	}
	var p registered
	if err := json.Unmarshal(payload, &p); err != nil {
		p.Submods = nil // an issuer whose submods are no EAR's; policies still read them
		var fixed struct {
			Issuer    string   `json:"iss"`
			Expires   *float64 `json:"exp"`
			NotBefore float64  `json:"nbf"`
		}
		if err := json.Unmarshal(payload, &fixed); err != nil {
			return Claims{}, fmt.Errorf("%w: payload: %w", ErrInvalid, err)
		}
		p = registered{Issuer: fixed.Issuer, Expires: fixed.Expires, NotBefore: fixed.NotBefore}
	}
	if err := p.inForce(v.own.cfg.Now()); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return Claims{
		Issuer: p.Issuer, Foreign: true, Expires: moment(*p.Expires), Raw: payload, Submods: p.Submods, teeKeys: v.trust.teeKeys,
	}, nil
}

// inForce checks exp, which must be there, and nbf.
func (p registered) inForce(now time.Time) error {
	switch {
	case p.Expires == nil:
		return errors.New("no expiry")
	case !now.Before(moment(*p.Expires).Add(leeway)):
		return errors.New("expired")
	case now.Before(moment(p.NotBefore).Add(-leeway)):
		return errors.New("not valid yet")
	}
	return nil
}

// moment reads a NumericDate. One beyond reason is cut to it: the year 2514.
func moment(seconds float64) time.Time {
	const far = 1 << 34
	return time.Unix(int64(math.Max(-far, math.Min(far, seconds))), 0)
}
