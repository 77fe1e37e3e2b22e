package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
)

// Provider is an identity provider whose tokens are accepted (kbs-protocol 6).
type Provider struct {
	Issuer   string // the token's iss must be this; "" accepts any
	Audience string // must be among the token's aud; "" accepts any
	// Name stands for the provider where Issuer is empty: two providers must not
	// be able to speak for one another's subjects.
	Name string
	Keys []*jwks.Set
}

// name is whose word a token of the provider is.
func (p Provider) name() string {
	if p.Issuer != "" {
		return p.Issuer
	}
	return p.Name
}

// timeClaims are NumericDates (RFC 7519 section 2), which may have a fraction.
type timeClaims struct {
	IssuedAt  *float64 `json:"iat"`
	Expires   *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
}

// leeway is how far an issuer's clock may be ahead.
const leeway = time.Minute

func instant(f float64) (time.Time, error) {
	if math.IsNaN(f) || f < 0 || f > 1<<40 {
		return time.Time{}, errors.New("a time is out of range")
	}
	return time.Unix(int64(f), 0), nil
}

// within checks the times of a token whose signature is good.
func (a *Authenticator) within(id Identity, c timeClaims) (Identity, error) {
	if c.Expires == nil || c.IssuedAt == nil {
		return Identity{}, errors.New("no expiry or time of issue")
	}
	var err error
	if id.Expires, err = instant(*c.Expires); err != nil {
		return Identity{}, err
	}
	if id.Issued, err = instant(*c.IssuedAt); err != nil {
		return Identity{}, err
	}
	now := a.c.Now()
	if c.NotBefore != nil {
		from, err := instant(*c.NotBefore)
		if err != nil || now.Add(leeway).Before(from) {
			return Identity{}, errors.New("not valid yet")
		}
	}
	switch life := id.Expires.Sub(id.Issued); {
	case !now.Before(id.Expires):
		return Identity{}, errors.New("expired")
	case now.Add(leeway).Before(id.Issued):
		return Identity{}, errors.New("issued in the future")
	case life > a.c.MaxLifetime:
		return Identity{}, fmt.Errorf("%w: it lives %s, at most %s is allowed", ErrLifetime, life, a.c.MaxLifetime)
	}
	return id, nil
}

// foreign reads the claims of a token that a provider signed.
func (a *Authenticator) foreign(p Provider, raw []byte) (Identity, error) {
	var c struct {
		timeClaims

		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience texts  `json:"aud"`
		ID       string `json:"jti"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Identity{}, err
	}
	if p.Issuer != "" && c.Issuer != p.Issuer {
		return Identity{}, errors.New("of another issuer")
	}
	if p.Audience != "" && !slices.Contains(c.Audience, p.Audience) {
		return Identity{}, errors.New("for another audience")
	}
	if c.Issuer == Issuer {
		return Identity{}, errors.New("of the broker's own issuer, and not by its key")
	}
	if len(c.Subject) > maxText || len(c.ID) > maxText {
		return Identity{}, errors.New("the subject or the id is too long")
	}
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		return Identity{}, err
	}
	id := Identity{Issuer: p.name(), Subject: c.Subject, TokenID: c.ID}
	id.Claim, _ = all["role"].(string)
	if len(id.Claim) > maxText {
		return Identity{}, errors.New("the role is too long")
	}
	id.Grants = a.grants(id.Issuer, all)
	return a.within(id, c.timeClaims)
}

// maxText bounds a name in a token, in bytes: it goes into audit entries.
const maxText = 256

// texts is a claim that is a string or a list of strings.
type texts []string

// UnmarshalJSON reads either form.
func (t *texts) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*t = texts{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil {
		return err
	}
	*t = many
	return nil
}
