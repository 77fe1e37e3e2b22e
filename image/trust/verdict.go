package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Verdict says why an image may run.
type Verdict struct {
	Reference    string   `json:"reference"`
	Digest       string   `json:"digest"`            // of the platform's manifest
	Scope        string   `json:"scope"`             // the place in the policy that spoke
	Requirements []string `json:"requirements"`      // their types; all of them held
	Signers      []string `json:"signers,omitempty"` // fingerprints, one for each of Signatures

	Signatures []Accepted `json:"signatures,omitempty"`
	Quorums    []Quorum   `json:"quorums,omitempty"`
	Waivers    []Waiver   `json:"waivers,omitempty"`

	Accepted bool `json:"accepted"`
	Waived   bool `json:"waived"` // accepted without any signature having been required
}

// A Rejection is the private cause of a refusal: what the policy wanted and
// what was there instead.
type Rejection struct {
	Reference string
	Digest    string
	Scope     string
	Reason    string
	Seen      string   // the signatures that are there
	Wanted    []string // fingerprints of the keys that it asks for
	Signed    []string // those of them that have signed, where more are needed
	cause     error
}

func (r *Rejection) Error() string {
	s := fmt.Sprintf("%s (%s) refused by %s: %s", r.Reference, r.Digest, r.Scope, r.Reason)
	if len(r.Wanted) > 0 {
		s += fmt.Sprintf("; wanted key %s; seen: %s", strings.Join(r.Wanted, ", "), r.Seen)
	}
	if len(r.Signed) > 0 {
		s += "; signed by " + strings.Join(r.Signed, ", ")
	}
	return s
}

// Unwrap returns what went wrong beneath, for example a key that could not be
// fetched.
func (r *Rejection) Unwrap() error { return r.cause }

// An Accepted is a signature that counted.
type Accepted struct {
	Requirement int               `json:"requirement"` // its index in the scope's list
	Signer      string            `json:"signer"`      // fingerprint of the key
	Form        Form              `json:"form"`
	Origin      Origin            `json:"origin"`                // where it was found
	Digest      string            `json:"digest"`                // that was signed: the manifest's, or the index's above it
	Identity    string            `json:"identity,omitempty"`    // the name that was signed
	Rule        string            `json:"rule,omitempty"`        // the signedIdentity that the name satisfied
	Annotations map[string]string `json:"annotations,omitempty"` // that the policy asked for
	Predicate   string            `json:"predicate,omitempty"`   // type of what was attested
	Seen        map[string]string `json:"seen,omitempty"`        // what stood where the policy has conditions
	Issuer      string            `json:"issuer,omitempty"`      // of the identity that signed: an OpenID provider
	Subject     string            `json:"subject,omitempty"`     // whom the issuer calls so
	SignedBy    *time.Time        `json:"signedBy,omitempty"`    // when it was there already, by a log or a timestamp
	Log         string            `json:"log,omitempty"`         // ID of the log that recorded it, and the entry's index

	unlogged bool
}

// A Quorum is how many of those that may sign had to, and did. Nobody looks for
// more of them once there are enough.
type Quorum struct {
	Requirement int `json:"requirement"` // its index in the scope's list
	Needed      int `json:"needed"`
	Of          int `json:"of"` // keys or identities that the policy names
}

// What a policy can waive.
const (
	WaivedSignature = "signature"
	WaivedIdentity  = "identity"
	WaivedCertLog   = "certificate-transparency"
	WaivedRevoked   = "revocation"
)

// A Waiver is something that the policy does without, by name.
type Waiver struct {
	Requirement int    `json:"requirement"` // its index in the scope's list
	What        string `json:"what"`        // [WaivedSignature] and its like
	By          string `json:"by"`          // the words of the policy
}

// add notes that a requirement held.
func (v *Verdict) add(i int, r requirement, accepted []Accepted) {
	v.Requirements = append(v.Requirements, r.kind)
	v.Signatures = append(v.Signatures, accepted...)
	if of := len(r.keys) + len(r.identities); of > 0 && r.threshold > 0 {
		v.Quorums = append(v.Quorums, Quorum{Requirement: i, Needed: r.threshold, Of: of})
	}
	if slices.ContainsFunc(accepted, func(a Accepted) bool { return a.unlogged }) {
		v.Waivers = append(v.Waivers, Waiver{Requirement: i, What: WaivedCertLog, By: "a root of trust without logs of certificates"})
	}
	for _, a := range accepted {
		v.Waived = false
		v.Signers = append(v.Signers, a.Signer)
	}
	switch {
	case r.kind == typeAccept:
		v.Waivers = append(v.Waivers, Waiver{Requirement: i, What: WaivedSignature, By: typeAccept})
	case r.notation != nil:
		v.Waivers = append(v.Waivers, Waiver{Requirement: i, What: WaivedRevoked, By: ignoreRevocation})
		if r.notation.anyone {
			v.Waivers = append(v.Waivers, Waiver{Requirement: i, What: WaivedIdentity, By: anyIdentity})
		}
	case r.identity.kind == ignoreIdentity:
		v.Waivers = append(v.Waivers, Waiver{Requirement: i, What: WaivedIdentity, By: ignoreIdentity})
	}
}
