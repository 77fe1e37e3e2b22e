package api

import (
	"encoding/json"
	"time"
)

// Paths of what belongs to a policy, each followed by /{kind}/{id...}, and of
// the recorded decisions. An id may have slashes, so nothing can follow it.
const (
	PathPolicyVersions = PathV1 + "/policy-versions"  // GET: every version that is kept, without texts
	PathPolicyStages   = PathV1 + "/policy-stages"    // POST a StageChange
	PathPolicyShadows  = PathV1 + "/policy-shadows"   // GET the ShadowReport
	PathPolicyReplays  = PathV1 + "/policy-replays"   // POST a ReplayRequest
	PathDecisions      = PathV1 + "/policy-decisions" // GET, as a list
)

// The stages of a policy's version.
const (
	StageDraft   = "draft"   // kept, evaluated for nobody
	StageShadow  = "shadow"  // evaluated beside the version in force; decides nothing
	StageEnforce = "enforce" // decides
	StageRetired = "retired" // decided once
	StageDeleted = "deleted" // a mark in the history: from here on there was no policy
)

// Policy is one version of one policy document. A write names the version that
// its author saw: 0 means that there must be none, -1 whatever there is.
// Versions are numbered from 1, are never changed and never reused.
type Policy struct {
	Kind    string `json:"kind"` // "attestation" or "resource"
	ID      string `json:"id"`
	Version int64  `json:"version"`
	Rego    string `json:"rego"`
	// Stage is where this version stands. In a PUT it is where the new version
	// goes: "enforce" (or nothing), "shadow" or "draft".
	Stage  string    `json:"stage,omitempty"`
	Note   string    `json:"note,omitempty"` // why, in the author's words
	Author string    `json:"author,omitempty"`
	Time   time.Time `json:"time"`
	SHA256 string    `json:"sha256,omitempty"` // of the text, hex
	// InForce says whether the broker evaluates this version to decide. A text
	// under a name that nothing selects is kept, and decides nothing.
	InForce bool `json:"in_force"`
	// Shadow is the version in the shadow stage, if there is one.
	Shadow int64 `json:"shadow,omitempty"`
	// Latest is the newest version, whatever its stage.
	Latest int64 `json:"latest,omitempty"`
}

// StageChange moves a version of a policy to another stage.
type StageChange struct {
	// To is "shadow" or "enforce"; "draft" takes the shadow away.
	To string `json:"to"`
	// Target is the version to move; 0 means the shadow if there is one, else
	// the newest. With Rollback it is one that was in force before; 0 means the
	// last such version below the one in force.
	Target int64 `json:"target,omitempty"`
	// Version is the one in force that the caller saw; 0 none, -1 whatever.
	Version  int64  `json:"version"`
	Rollback bool   `json:"rollback,omitempty"`
	Note     string `json:"note,omitempty"`
	// AllowNewlyAllowed lets a version be enforced although it would allow what
	// is recorded as refused.
	AllowNewlyAllowed bool `json:"allow_newly_allowed,omitempty"`
}

// Decision is one recorded input of a policy with what was decided about it.
// Inputs that differ only in nonces, keys, times and random ids are one.
type Decision struct {
	Digest  string            `json:"digest"`
	Kind    string            `json:"kind"`
	ID      string            `json:"id,omitempty"` // attestation: the policy that was asked for
	Plugin  string            `json:"plugin,omitempty"`
	Path    []string          `json:"path,omitempty"`
	Query   map[string]string `json:"query,omitempty"`
	Input   json.RawMessage   `json:"input"`  // the claims, without their volatile members
	Policy  string            `json:"policy"` // kind/id@version that decided last
	Verdict Verdict           `json:"verdict"`
	Count   int64             `json:"count"`
	First   time.Time         `json:"first"`
	Last    time.Time         `json:"last"`
}

// Verdict is what a policy said: about a release, whether it is allowed; about
// evidence, the vector, which "allows" if it is affirming.
type Verdict struct {
	Allow  bool            `json:"allow"`
	Vector map[string]int8 `json:"vector,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Flip is a decision that another version of a policy would make differently.
type Flip struct {
	Decision Decision `json:"decision"`
	Kind     string   `json:"kind"` // one of the Flip... words
	Before   Verdict  `json:"before"`
	After    Verdict  `json:"after"`
}

// What a flip is.
const (
	FlipAllowed = "newly_allowed"
	FlipDenied  = "newly_denied"
	FlipChanged = "changed" // another vector with the same consequence
	FlipError   = "error"   // cannot be evaluated any more
)

// Tally counts decisions by what another version does to them.
type Tally struct {
	Unchanged    int64 `json:"unchanged"`
	NewlyAllowed int64 `json:"newly_allowed"`
	NewlyDenied  int64 `json:"newly_denied"`
	Changed      int64 `json:"changed"`
	Errors       int64 `json:"errors"`
}

// ReplayRequest asks what a candidate would do to the recorded decisions.
type ReplayRequest struct {
	Rego   string    `json:"rego,omitempty"`   // the candidate,
	Target int64     `json:"target,omitempty"` // or the number of a version that is kept
	Since  time.Time `json:"since"`            // only decisions made since then
}

// ReplayReport says what a candidate would do. Flips are cut to a limit; the
// tally counts all.
type ReplayReport struct {
	Policy   string `json:"policy"`   // kind/id of the candidate
	Baseline string `json:"baseline"` // "in force", or "recorded" when offline
	Tally    Tally  `json:"tally"`
	Flips    []Flip `json:"flips"`
}

// ShadowReport is what the shadow of a policy would have done so far. Loss is
// allowed: Dropped counts the decisions that no shadow was asked about.
type ShadowReport struct {
	Policy  string    `json:"policy"` // kind/id@version of the shadow
	Tally   Tally     `json:"tally"`
	Dropped int64     `json:"dropped"`
	Since   time.Time `json:"since"`
	Samples []Flip    `json:"samples"`
}
