package token

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Verifier decides which tokens are good. It is safe for concurrent use.
type Verifier struct {
	own *Issuer
}

// NewVerifier accepts the tokens of an issuer.
func NewVerifier(own *Issuer) *Verifier { return &Verifier{own: own} }

// Verify accepts a token of a trusted issuer that has not expired. The error
// is ErrInvalid with a reason for the operator, or a failure of ours.
func (v *Verifier) Verify(ctx context.Context, text string) (Claims, error) {
	if len(text) > MaxSize {
		return Claims{}, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxSize)
	}
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	// The key is always our own, whatever the header offers.
	public, ok, err := v.own.cfg.Keys.public(ctx, jws.Signatures[0].Protected.KeyID)
	if err != nil {
		return Claims{}, err
	}
	if !ok {
		return Claims{}, fmt.Errorf("%w: signed under another key", ErrInvalid)
	}
	raw, err := jws.Verify(public)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var p struct {
		Issuer   string                     `json:"iss"`
		Expires  *int64                     `json:"exp"`
		IssuedAt int64                      `json:"iat"`
		ID       string                     `json:"jti"`
		Submods  map[string]AppraisalClaims `json:"submods"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	now := v.own.cfg.Now()
	switch {
	case p.Issuer != v.own.cfg.Issuer:
		return Claims{}, fmt.Errorf("%w: issuer %q", ErrInvalid, p.Issuer)
	case p.Expires == nil:
		return Claims{}, fmt.Errorf("%w: no expiry", ErrInvalid)
	case !now.Before(time.Unix(*p.Expires, 0).Add(leeway)):
		return Claims{}, fmt.Errorf("%w: expired", ErrInvalid)
	case now.Before(time.Unix(p.IssuedAt, 0).Add(-leeway)):
		return Claims{}, fmt.Errorf("%w: issued in the future", ErrInvalid)
	}
	return Claims{ID: p.ID, Expires: time.Unix(*p.Expires, 0), Raw: raw, Submods: p.Submods}, nil
}
