package admin

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
)

// Mode is the field's authorization_mode (kbs-protocol 6).
type Mode string

// The modes.
const (
	Authenticated    Mode = "AuthenticatedAuthorization"
	InsecureAllowAll Mode = "InsecureAllowAll" // everybody is an owner
	DenyAll          Mode = "DenyAll"          // nobody is let in
)

// maxSize bounds a token, in bytes.
const maxSize = 16 << 10

// Config says whose tokens are accepted and what they allow.
type Config struct {
	Mode        Mode              // "" means Authenticated
	Key         ed25519.PublicKey // of the broker's own tokens
	Providers   []Provider
	Mappings    []Mapping
	ACLs        []ACL
	Home        string        // the tenant of whoever names none
	MaxLifetime time.Duration // of any token, from iat to exp
	// Revoked reports whether a token was revoked; nil means that none can be.
	Revoked func(context.Context, Identity) (bool, error)
	Now     func() time.Time
}

// Authenticator checks bearer tokens. It is safe for concurrent use.
type Authenticator struct{ c Config }

// NewAuthenticator returns an authenticator.
func NewAuthenticator(c Config) *Authenticator { return &Authenticator{c} }

// Authenticate reads an Authorization header. A credential that is not accepted
// is ErrUnauthenticated; ErrDenyAll comes before any look at it. Other errors
// mean that it could not be checked.
func (a *Authenticator) Authenticate(ctx context.Context, header string) (Identity, error) {
	switch a.c.Mode {
	case InsecureAllowAll:
		return Identity{Issuer: Issuer, Grants: []Grant{{Owner, []string{AnyTenant}}}, Claim: "anyone"}, nil
	case DenyAll:
		return Identity{}, ErrDenyAll
	case Authenticated, "":
	}
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || text == "" || len(text) > maxSize {
		return Identity{}, fmt.Errorf("%w: no bearer token", ErrUnauthenticated)
	}
	id, err := a.verify(ctx, text)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	if a.c.Revoked == nil {
		return id, nil
	}
	switch revoked, err := a.c.Revoked(ctx, id); {
	case err != nil:
		return Identity{}, fmt.Errorf("look for a revocation: %w", err)
	case revoked:
		return Identity{}, fmt.Errorf("%w: revoked", ErrUnauthenticated)
	}
	return id, nil
}

// verify tries the broker's own key and then the providers in their order. All
// that was tried is in the error, for the operator.
func (a *Authenticator) verify(ctx context.Context, text string) (Identity, error) {
	jws, err := jose.ParseSignedCompact(text, jwks.Accepted())
	if err != nil {
		return Identity{}, err
	}
	if len(a.c.Key) != 0 {
		if raw, err := jws.Verify(a.c.Key); err == nil {
			return a.own(raw)
		}
	}
	kid := jws.Signatures[0].Header.KeyID
	var tried []error
	for _, p := range a.c.Providers {
		id, err := a.ask(ctx, p, jws, kid)
		if err == nil {
			return id, nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", p.name(), err))
	}
	return Identity{}, errors.Join(append(tried, errors.New("not by the broker's own key"))...)
}

// ask tries the keys of one provider.
func (a *Authenticator) ask(ctx context.Context, p Provider, jws *jose.JSONWebSignature, kid string) (Identity, error) {
	var tried []error
	for _, set := range p.Keys {
		keys, err := set.Find(ctx, kid)
		if err != nil {
			tried = append(tried, err)
			continue
		}
		raw, err := jwks.Verify(jws, keys)
		if err != nil {
			tried = append(tried, err)
			continue
		}
		return a.foreign(p, raw)
	}
	return Identity{}, errors.Join(tried...)
}

// Permits reports whether an identity may make a call: by a role that counts
// for the tenant, or, for calls of the field's protocol, by the access list.
func (a *Authenticator) Permits(id Identity, c Call) bool {
	if id.Has(c.Need, c.Tenant) {
		return true
	}
	return slices.ContainsFunc(a.c.ACLs, func(e ACL) bool { return e.permits(id, c, a.c.Home) })
}

// Concerns reports whether an identity has any business with a tenant. To a
// tenant that does not concern them they are strangers. Whoever has no role at
// all is told so at home: the mistake is in a mapping, not in the token.
func (a *Authenticator) Concerns(id Identity, tenant string) bool {
	return id.In(tenant) ||
		slices.ContainsFunc(a.c.ACLs, func(e ACL) bool { return e.concerns(id, tenant, a.c.Home) }) ||
		len(id.Grants) == 0 && tenant == a.c.Home
}
