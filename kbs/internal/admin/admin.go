// Package admin decides who may administer the broker, and what.
//
// An administrator presents a short-lived bearer JWT. It comes from an identity
// provider that the configuration names, or it is signed with EdDSA by the
// broker's own admin key, which is how the first owner gets in. No token that
// lives longer than the configured maximum is accepted, whoever signed it, and
// a token can be revoked before its end.
//
// What a bearer may do is decided by roles over method and parsed route. The
// roles of a provider's token come from its claims through a configured
// mapping, together with the tenants that they count for; the access list of
// the field's brokers is enforced beside them on /kbs/v0 (kbs-protocol 6).
//
// Of its own key, the broker process only ever reads the public half. The
// private half stays in the state directory (keys/admin.pem, mode 0600), because
// `kbs admin-token` needs it to make further tokens: whoever can read that file
// can read every other key of the broker too, so it gives nobody a power that
// they do not have.
package admin

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// AnyTenant among the tenants of an identity is all of them, and the broker.
const AnyTenant = "*"

// Causes of a refusal, in the words that the field's tests look for
// (kbs-protocol 2.4).
var (
	// ErrUnauthenticated is returned for every credential that is not accepted.
	// The wrapped reason is for the operator's log.
	ErrUnauthenticated = errors.New("Cannot verify token with any of the issuers") //nolint:staticcheck // the field's words
	// ErrDenyAll says that the configuration lets no administrator in.
	ErrDenyAll = errors.New("DenyAll authorization_mode is enabled")
	// ErrLifetime is an ErrUnauthenticated whose bearer may know the reason: the
	// token is genuine, and lives longer than any may.
	ErrLifetime = errors.New("the token lives longer than the broker accepts")
)

// Grant is a role, and the tenants that it counts for: names, or AnyTenant.
type Grant struct {
	Role    Role     `json:"role"`
	Tenants []string `json:"tenants"`
}

func (g Grant) in(tenant string) bool {
	return slices.Contains(g.Tenants, AnyTenant) || slices.Contains(g.Tenants, tenant)
}

// Identity is an authenticated administrator.
type Identity struct {
	Issuer  string  `json:"issuer"`  // whose word it is
	Subject string  `json:"subject"` // unique for the issuer; "" if the token names none
	Grants  []Grant `json:"grants"`
	// Claim is the token's own "role", by which the field's access list goes.
	Claim   string    `json:"claim,omitempty"`
	TokenID string    `json:"token_id,omitempty"`
	Issued  time.Time `json:"issued,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
}

// String names the administrator in audit entries.
func (i Identity) String() string {
	name := i.Subject
	if name == "" {
		name = "role " + i.Claim
	}
	if i.Issuer == Issuer || i.Issuer == "" {
		return "admin:" + name
	}
	return "admin:" + name + "@" + i.Issuer
}

// Has reports whether a role that counts for the tenant includes need. For the
// broker as a whole, ask for AnyTenant.
func (i Identity) Has(need Role, tenant string) bool {
	return slices.ContainsFunc(i.Grants, func(g Grant) bool { return g.Role.Includes(need) && g.in(tenant) })
}

// In reports whether any role counts for a tenant.
func (i Identity) In(tenant string) bool {
	return slices.ContainsFunc(i.Grants, func(g Grant) bool { return g.in(tenant) })
}

// Same reports whether two identities may be one person. Where a token does not
// say who bears it, they may.
func (i Identity) Same(o Identity) bool {
	if i.Subject == "" || o.Subject == "" {
		return true
	}
	return i.Issuer == o.Issuer && i.Subject == o.Subject
}

// RoleNames are the roles as a text, for messages: the field's role if the
// token has one.
func (i Identity) RoleNames() string {
	if i.Claim != "" {
		return i.Claim
	}
	names := make([]string, len(i.Grants))
	for n, g := range i.Grants {
		names[n] = string(g.Role)
	}
	return strings.Join(names, ",")
}
