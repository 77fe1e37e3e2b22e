package api

import "encoding/json"

// AnyAttestation is the body of POST /kbs/v0/attest in every version of the
// protocol (sections 3.3 and 3.7): in 0.4.0 that of [Attestation], before it
// key and evidence alone.
type AnyAttestation struct {
	InitData    *InitData       `json:"init-data,omitempty"`    // 0.4.0
	RuntimeData *RuntimeData    `json:"runtime-data,omitempty"` // 0.4.0
	TEEPubKey   *JWK            `json:"tee-pubkey,omitempty"`   // up to 0.2.0
	TEEEvidence json.RawMessage `json:"tee-evidence"`           // 0.4.0: a TEEEvidence; 0.1.0: JSON in a string
}
