// Package api holds the wire types of the key broker: the KBS protocol under
// /kbs/v0 exactly as the field speaks it, and our own /v1 beside it. There is
// no logic here beyond encoding, so that a client needs nothing else.
//
// Sections named in comments are those of kbs-protocol; see
// docs/reference/specifications.md.
package api

import "encoding/json"

// ProtocolVersion is the version of the RCAR handshake (section 3.1).
const ProtocolVersion = "0.4.0"

// Paths of the guest-facing protocol (section 2.2).
const (
	PathPrefix            = "/kbs/v0"
	PathAuth              = PathPrefix + "/auth"
	PathAttest            = PathPrefix + "/attest"
	PathResource          = PathPrefix + "/resource"
	PathResourcePolicy    = PathPrefix + "/resource-policy"
	PathAttestationPolicy = PathPrefix + "/attestation-policy"
	PathReferenceValue    = PathPrefix + "/reference-value"
)

// SessionCookie carries the session between auth and attest (section 3.2).
const SessionCookie = "kbs-session-id"

// Request opens a handshake: POST /kbs/v0/auth (section 3.1).
type Request struct {
	Version     string          `json:"version"`
	TEE         string          `json:"tee"`
	ExtraParams json.RawMessage `json:"extra-params"` // "" or an object
}

// ExtraParams is the object that current clients send in Request and may get
// back in Challenge.
type ExtraParams struct {
	SupportedHashAlgorithms   []string `json:"supported-hash-algorithms,omitempty"`
	SelectedHashAlgorithm     string   `json:"selected-hash-algorithm,omitempty"`
	AttestationPolicySelector string   `json:"attestation-policy-selector,omitempty"`
}

// Challenge answers a Request (section 3.2). Nonce is the standard base64 of 32
// random bytes; its text, not the decoded bytes, is what gets hashed.
type Challenge struct {
	Nonce       string          `json:"nonce"`
	ExtraParams json.RawMessage `json:"extra-params"`
}

// Attestation is the body of POST /kbs/v0/attest (section 3.3).
type Attestation struct {
	InitData    *InitData   `json:"init-data"`
	RuntimeData RuntimeData `json:"runtime-data"`
	TEEEvidence TEEEvidence `json:"tee-evidence"`
}

// InitData is the init-data document as measured, byte for byte (section 9.4).
type InitData struct {
	Format string `json:"format"` // "toml"
	Body   string `json:"body"`
}

// RuntimeData binds the handshake to the guest's ephemeral key.
type RuntimeData struct {
	Nonce     string `json:"nonce"`
	TEEPubKey JWK    `json:"tee-pubkey"`
}

// TEEEvidence carries the evidence. AdditionalEvidence is a string, so that its
// exact bytes can be bound by hash; empty means no devices.
type TEEEvidence struct {
	PrimaryEvidence    json.RawMessage `json:"primary_evidence"`
	AdditionalEvidence string          `json:"additional_evidence"`
}

// JWK is a guest public key reduced to the members that the protocol hashes
// (section 3.6). Members that a client adds are dropped before hashing.
type JWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv,omitempty"`
	Alg string `json:"alg"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	Pub string `json:"pub,omitempty"`
}

// AttestResponse answers a successful Attestation.
type AttestResponse struct {
	Token string `json:"token"`
}

// JWE is an encrypted answer in flattened JSON serialisation (section 4). All
// members are base64url without padding.
type JWE struct {
	Protected    string `json:"protected"`
	EncryptedKey string `json:"encrypted_key"`
	IV           string `json:"iv"`
	Ciphertext   string `json:"ciphertext"`
	Tag          string `json:"tag"`
}

// ErrorTypePrefix starts ErrorInformation.Type (section 2.4).
const ErrorTypePrefix = "https://github.com/confidential-containers/kbs/errors/"

// ErrorInformation is the error body of the KBS protocol (section 2.4), with
// our code and ticket beside the two members that today's clients read.
type ErrorInformation struct {
	Type   string `json:"type"`
	Detail string `json:"detail"`
	Code   string `json:"code,omitempty"`
	Ticket string `json:"ticket,omitempty"`
}
