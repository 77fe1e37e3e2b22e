package api

import "time"

// PathTokenKeys lists the keys that sign attestation tokens; POST to
// PathRotateTokenKey makes the next one sign.
const (
	PathTokenKeys      = PathV1 + "/keys/token"
	PathRotateTokenKey = PathTokenKeys + "/rotate"
)

// TokenKey is one key that signs attestation tokens, or that did.
type TokenKey struct {
	ID    string     `json:"id"`    // the kid of its tokens
	State string     `json:"state"` // "current", "next", "retired", "external"
	Signs bool       `json:"signs"` // this replica signs with it
	Since time.Time  `json:"since"` // when it got its state
	Until *time.Time `json:"until,omitempty"`
}

// TokenKeys are all of them.
type TokenKeys struct {
	Version int64      `json:"version"`
	Items   []TokenKey `json:"items"`
}

// RotateTokenKey asks for a rotation. If-Match with the version of the list
// makes it conditional.
type RotateTokenKey struct {
	// Now does not wait until the next key has been published for long enough.
	Now bool `json:"now,omitempty"`
	// Revoke also ends every token that is out there.
	Revoke bool `json:"revoke,omitempty"`
}

// KeySet is what a relying party verifies tokens with (RFC 7517 section 5).
type KeySet struct {
	Keys []PublicKey `json:"keys"`
}

// PublicKey is the public half of a key that signs tokens, as their header and
// the key set show it (section 10).
type PublicKey struct {
	Kty string   `json:"kty"` // "EC"
	Crv string   `json:"crv"` // "P-256"
	Alg string   `json:"alg"` // "ES256"
	Use string   `json:"use,omitempty"`
	Kid string   `json:"kid,omitempty"`
	X   string   `json:"x"`
	Y   string   `json:"y"`
	X5U string   `json:"x5u,omitempty"`
	X5C [][]byte `json:"x5c,omitempty"` // leaf first, in standard base64 (section 0)
}

// Discovery is the part of OpenID Connect Discovery 1.0 that a verifier of
// tokens reads.
type Discovery struct {
	Issuer     string   `json:"issuer"`
	JWKSURI    string   `json:"jwks_uri"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	Responses  []string `json:"response_types_supported"`
	Subjects   []string `json:"subject_types_supported"`
}

// Paths of what relying parties read: public, and on the guests' listener.
const (
	PathJWKS      = "/.well-known/jwks.json"
	PathDiscovery = "/.well-known/openid-configuration"
)
