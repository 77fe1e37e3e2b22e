// Package admin decides who may administer the broker.
//
// An administrator presents a bearer JWT signed with EdDSA by the broker's own
// admin key; its role claim says what the bearer may do. The broker process
// only ever reads the public half. The private half stays in the state
// directory (keys/admin.pem, mode 0600), because `kbs admin-token` needs it to
// make further tokens: whoever can read that file can read every other key of
// the broker too, so it gives nobody a power that they do not have.
package admin

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Role is what a token allows; each role includes those before it.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // read everything but secrets
	Operator Role = "operator" // change resources and reference values
	Owner    Role = "owner"    // change policies
)

var roles = []Role{Viewer, Operator, Owner}

// ParseRole reads a role name.
func ParseRole(s string) (Role, error) {
	if !slices.Contains(roles, Role(s)) {
		return "", fmt.Errorf("role must be one of %v", roles)
	}
	return Role(s), nil
}

// Includes reports whether r may do what needs the role least.
func (r Role) Includes(least Role) bool {
	have, need := slices.Index(roles, r), slices.Index(roles, least)
	return have >= 0 && need >= 0 && have >= need
}

// Constants of the tokens.
const (
	Issuer   = "vouchsafe-kbs"
	Audience = "vouchsafe-kbs-admin"
	// MaxLifetime limits a token: nobody needs one for ten years.
	MaxLifetime = 30 * 24 * time.Hour

	maxSize = 8 << 10
)

// ErrUnauthenticated is returned for every credential that is not accepted.
// The wrapped reason is for the operator's log.
var ErrUnauthenticated = errors.New("admin: no valid credential")

// Identity is an authenticated administrator.
type Identity struct {
	Subject string
	Role    Role
	TokenID string
}

// String names the administrator in audit entries.
func (i Identity) String() string { return "admin:" + i.Subject }

type claims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience []string `json:"aud"`
	Role     Role     `json:"role"`
	IssuedAt int64    `json:"iat"`
	Expires  *int64   `json:"exp"`
	ID       string   `json:"jti"`
}

// Issue signs a token.
func Issue(key ed25519.PrivateKey, subject string, role Role, lifetime time.Duration, now time.Time) (secret.Bytes, error) {
	if lifetime <= 0 || lifetime > MaxLifetime {
		return secret.Bytes{}, fmt.Errorf("an admin token lives longer than nothing and at most %s", MaxLifetime)
	}
	if _, err := ParseRole(string(role)); err != nil {
		return secret.Bytes{}, err
	}
	exp := now.Add(lifetime).Unix()
	raw, err := json.Marshal(claims{
		Issuer: Issuer, Subject: subject, Audience: []string{Audience}, Role: role,
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

// Authenticator checks bearer tokens.
type Authenticator struct {
	key ed25519.PublicKey
	now func() time.Time
}

// NewAuthenticator accepts tokens signed under key.
func NewAuthenticator(key ed25519.PublicKey, now func() time.Time) *Authenticator {
	return &Authenticator{key: key, now: now}
}

// Authenticate reads an Authorization header. Any error is ErrUnauthenticated.
func (a *Authenticator) Authenticate(header string) (Identity, error) {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || text == "" || len(text) > maxSize {
		return Identity{}, fmt.Errorf("%w: no bearer token", ErrUnauthenticated)
	}
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	raw, err := jws.Verify(a.key)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	if err := c.validate(a.now()); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return Identity{Subject: c.Subject, Role: c.Role, TokenID: c.ID}, nil
}

func (c claims) validate(now time.Time) error {
	switch {
	case c.Expires == nil:
		return errors.New("no expiry")
	case !now.Before(time.Unix(*c.Expires, 0)):
		return errors.New("expired")
	case now.Before(time.Unix(c.IssuedAt, 0)):
		return errors.New("issued in the future")
	case c.Issuer != Issuer || !slices.Contains(c.Audience, Audience):
		return errors.New("made for another service")
	case c.Subject == "" || c.ID == "":
		return errors.New("no subject or id")
	}
	_, err := ParseRole(string(c.Role))
	return err
}

// GenerateKey returns a new Ed25519 key as PKCS #8 in PEM.
func GenerateKey() (secret.Bytes, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("generate admin key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encode admin key: %w", err)
	}
	return secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// MarshalPublicKey returns the public half as SPKI in PEM.
func MarshalPublicKey(key ed25519.PrivateKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode admin key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), nil
}

// ParsePrivateKey reads the private half.
func ParsePrivateKey(text secret.Bytes) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text.Reveal())
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("admin key: no PRIVATE KEY block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("admin key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("admin key: want Ed25519, have %T", parsed)
	}
	return key, nil
}

// ParsePublicKey reads the public half.
func ParsePublicKey(text []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("admin public key: no PUBLIC KEY block")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("admin public key: %w", err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("admin public key: want Ed25519, have %T", parsed)
	}
	return key, nil
}
