package api

import "time"

// Paths of what administrators are and have.
const (
	PathWhoAmI      = PathV1 + "/whoami"      // GET
	PathRevocations = PathV1 + "/revocations" // GET list, POST
	// PathGuestRevocations has GET list, POST, DELETE /{id}.
	PathGuestRevocations = PathV1 + "/guest-revocations"
)

// AnyTenant in the tenants of a role is all of them, and the broker as a whole.
const AnyTenant = "*"

// WhoAmI is what the broker makes of the caller's credential.
type WhoAmI struct {
	Name     string      `json:"name"` // as audit entries show it
	Issuer   string      `json:"issuer"`
	Subject  string      `json:"subject,omitempty"`
	Tenant   string      `json:"tenant"` // that was asked
	Roles    []AdminRole `json:"roles"`
	Claim    string      `json:"role_claim,omitempty"` // what the field's access list goes by
	TokenID  string      `json:"token_id,omitempty"`
	Issued   time.Time   `json:"issued,omitzero"`
	Expires  time.Time   `json:"expires,omitzero"`
	Insecure bool        `json:"insecure,omitempty"` // nobody was asked for a credential
}

// AdminRole is a role with the tenants that it counts for: names, or AnyTenant.
type AdminRole struct {
	Role    string   `json:"role"`
	Tenants []string `json:"tenants"`
}

// RevocationRequest ends one admin token, by TokenID, or all that Subject was
// given until now, by Issuer or else by the broker itself; or, with Own alone,
// the token that the request comes with. Exactly one of the three is named.
type RevocationRequest struct {
	Issuer  string `json:"issuer,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	Subject string `json:"subject,omitempty"`
	Own     bool   `json:"own,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Revocation is one admin token that ended, or all that a subject was given
// until then.
type Revocation struct {
	Issuer  string    `json:"issuer,omitempty"`
	TokenID string    `json:"token_id,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Author  string    `json:"author,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	Expires time.Time `json:"expires,omitzero"` // when every such token has ended by itself
}

// GuestRevocation cuts guests off, although their tokens are genuine. It names
// TokenID, the jti of a token: its guest may attest again. Or it names a Claim
// and the Value that evidence must not show: no guest that shows it gets a
// token, or anything for one that it has. Or it names a Lease: its guest does
// not get that object any more, whatever token it has.
type GuestRevocation struct {
	ID      string `json:"id,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	// Claim is the way to a claim as policies read it, platform first, with dots
	// between: snp.chip_id, tdx.quote.body.mr_td. Of a list, any element counts.
	Claim  string `json:"claim,omitempty"`
	Value  string `json:"value,omitempty"` // in either case
	Lease  string `json:"lease,omitempty"` // an id of [PathLeases]
	Reason string `json:"reason"`
	// Until is when it ends; absent is never, but for a token of the broker's
	// own, whose revocation ends when the token does.
	Until  time.Time `json:"until,omitzero"`
	Author string    `json:"author,omitempty"`
	Time   time.Time `json:"time,omitzero"`
}
