package admin

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Constants of the broker's own tokens.
const (
	Issuer   = "vouchsafe-kbs"
	Audience = "vouchsafe-kbs-admin"
	// MaxLifetime limits what any configuration may allow.
	MaxLifetime = 7 * 24 * time.Hour
)

// Token is what a token of the broker's own says.
type Token struct {
	Grant

	Subject  string
	Lifetime time.Duration
}

// ownClaims are those of the broker's own tokens.
type ownClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience []string `json:"aud"`
	Role     Role     `json:"role"`
	Tenants  []string `json:"tenants"`
	IssuedAt int64    `json:"iat"`
	Expires  *int64   `json:"exp"`
	ID       string   `json:"jti"`
}

// Issue signs a token; without tenants it counts for all.
func Issue(key ed25519.PrivateKey, t Token, now time.Time) (secret.Bytes, error) {
	if t.Lifetime <= 0 || t.Lifetime > MaxLifetime {
		return secret.Bytes{}, fmt.Errorf("an admin token lives longer than nothing and at most %s", MaxLifetime)
	}
	if _, err := ParseRole(string(t.Role)); err != nil {
		return secret.Bytes{}, err
	}
	if t.Subject == "" {
		return secret.Bytes{}, errors.New("an admin token names its bearer")
	}
	if len(t.Tenants) == 0 {
		t.Tenants = []string{AnyTenant}
	}
	exp := now.Add(t.Lifetime).Unix()
	raw, err := json.Marshal(ownClaims{
		Issuer: Issuer, Subject: t.Subject, Audience: []string{Audience}, Role: t.Role, Tenants: t.Tenants,
		IssuedAt: now.Unix(), Expires: &exp, ID: hex.EncodeToString(secret.Random(16).Reveal()),
	})
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encode admin token: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("admin token signer: %w", err)
	}
	jws, err := signer.Sign(raw)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("sign admin token: %w", err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encode admin token: %w", err)
	}
	return secret.New([]byte(text)), nil
}

// Ends is when a token says that it ends; nobody verified that. A text that is no
// token of a broker's own ended at the beginning of time.
func Ends(text secret.Bytes) time.Time {
	var c ownClaims
	jws, err := jose.ParseSignedCompact(strings.TrimSpace(string(text.Reveal())), []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &c) != nil || c.Expires == nil {
		return time.Time{}
	}
	return time.Unix(*c.Expires, 0)
}

// own reads the claims of a token that the broker's own key signed.
func (a *Authenticator) own(raw []byte) (Identity, error) {
	var c ownClaims
	if err := json.Unmarshal(raw, &c); err != nil {
		return Identity{}, err
	}
	if c.Issuer != Issuer || !slices.Contains(c.Audience, Audience) {
		return Identity{}, errors.New("made for another service")
	}
	if c.Subject == "" || c.ID == "" {
		return Identity{}, errors.New("no subject or id")
	}
	if _, err := ParseRole(string(c.Role)); err != nil {
		return Identity{}, err
	}
	if len(c.Tenants) == 0 {
		return Identity{}, errors.New("no tenants")
	}
	id := Identity{Issuer: Issuer, Subject: c.Subject, Grants: []Grant{{c.Role, c.Tenants}}, TokenID: c.ID}
	var times timeClaims
	if err := json.Unmarshal(raw, &times); err != nil {
		return Identity{}, err
	}
	return a.within(id, times)
}
