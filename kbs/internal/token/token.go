// Package token writes and reads attestation result tokens: an EAR in a JWT
// signed with ES256 (kbs-protocol 10).
//
// The keys that sign live in the broker's key ring, the same for all replicas
// ([Keys]): one signs, the next is published already, and those before verify
// until what they signed has expired. A [Verifier] accepts what these keys
// signed, and of other issuers only what the configuration trusts.
package token

import (
	"errors"
	"time"
)

// Constants of the payload (kbs-protocol 10).
const (
	// Profile is the eat_profile that the field's relying parties know.
	Profile = "tag:github.com,2024:confidential-containers/Trustee"
	// CPU is the name of the submod of the primary evidence.
	CPU = "cpu0"
	// SimulatedRoot is the member of a submod that rests on a simulated root.
	SimulatedRoot = "ear.vouchsafe.simulated-root"

	memberStatus   = "ear.status"
	memberVector   = "ear.trustworthiness-vector"
	memberPolicy   = "ear.appraisal-policy-id"
	memberEvidence = "ear.veraison.annotated-evidence"
	memberAttester = "ear_attester_claims"
	memberVerifier = "ear_verifier_claims"
)

// EvaluatedPrefix begins the id of a token that was made for another broker
// (attestation.Evaluate). The issuer itself does not accept it.
const EvaluatedPrefix = "as-"

// MaxSize limits a token that is read, in bytes. Tokens with several devices
// reach 170 KiB (kbs-protocol 20).
const MaxSize = 512 << 10

// leeway is how far the clocks of issuer and verifier may be apart
// (kbs-protocol 5.2).
const leeway = 60 * time.Second

// ErrInvalid says that a token is not of an issuer that is trusted, or no
// longer valid.
var ErrInvalid = errors.New("token: invalid")

// Submod is the appraisal of one attester.
type Submod struct {
	Vector     Vector
	PolicyID   string         // the requested id, without class suffix
	Evidence   map[string]any // annotated evidence
	Extensions map[string]any // further members; they cannot replace those above
}

// Writer turns an appraisal into the members of a submod.
type Writer func(Submod) map[string]any

// Appraisal writes an appraisal as the field's relying parties read it.
func Appraisal(s Submod) map[string]any {
	m := make(map[string]any, len(s.Extensions)+4)
	for k, v := range s.Extensions {
		m[k] = v
	}
	m[memberStatus] = s.Vector.Status()
	m[memberVector] = s.Vector
	m[memberPolicy] = s.PolicyID
	m[memberEvidence] = s.Evidence
	return m
}

// AppraisalDraft04 also writes the members of draft 04 of EAR (kbs-protocol
// 3.9): what the attester claimed, and what the verifier knows to be bound to
// it. The annotated evidence stays, as long as relying parties read it.
func AppraisalDraft04(s Submod) map[string]any {
	m := Appraisal(s)
	attester, verifier := map[string]any{}, map[string]any{}
	for name, v := range s.Evidence {
		switch name {
		case "report_data", "init_data":
			attester[name] = v
		case "runtime_data_claims":
			verifier["report_data"] = v
		case "init_data_claims":
			verifier["init_data"] = v
		default: // the platform
			attester["tee"], attester["claims"] = name, v
		}
	}
	m[memberAttester], m[memberVerifier] = attester, verifier
	return m
}

// Reserved reports whether an extension may not have this name.
func Reserved(name string) bool {
	switch name {
	case memberStatus, memberVector, memberPolicy, memberEvidence, memberAttester, memberVerifier, SimulatedRoot:
		return true
	}
	return false
}

// payload is the EAR. Field order is that of the specification's example.
type payload struct {
	Profile  string            `json:"eat_profile"`
	IssuedAt int64             `json:"iat"`
	Expires  int64             `json:"exp"`
	Issuer   string            `json:"iss"`
	ID       string            `json:"jti"`
	Verifier map[string]string `json:"ear.verifier-id"`
	Submods  map[string]any    `json:"submods"`
}
