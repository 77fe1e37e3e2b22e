package api

import "time"

// PathApprovals are the changes that wait for a second person, or did: GET
// list, GET /{approval}, POST /{approval}/approve and /{approval}/deny.
const PathApprovals = PathV1 + "/approvals"

// States of an approval.
const (
	ApprovalPending   = "pending"
	ApprovalApproved  = "approved" // and being carried out
	ApprovalExecuted  = "executed"
	ApprovalFailed    = "failed" // it was approved, and could not be carried out
	ApprovalDenied    = "denied"
	ApprovalWithdrawn = "withdrawn" // by who had asked
	ApprovalExpired   = "expired"
)

// Approval is a change that an administrator asked for and that takes effect
// only when another one approves. The answer to such a request is 202 with
// this.
type Approval struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Action string `json:"action"` // such as policy.put
	Method string `json:"method"`
	Path   string `json:"path"` // with the query, within the tenant
	// Seen is the version of the object when it was asked; 0 if there was none,
	// absent if it has no versions. If it has another one since, nothing is done.
	Seen    *int64    `json:"seen,omitempty"`
	Author  string    `json:"author"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Body is what would be written, where that is no secret; SHA256 and Size
	// are always those of all of it.
	Body   string `json:"body,omitempty"`
	SHA256 string `json:"sha256"`
	Size   int    `json:"size"` // bytes
	// Decider approved or denied it, for Reason.
	Decider string    `json:"decider,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Decided time.Time `json:"decided,omitzero"`
	// Status and Code are the answer that the author would have had.
	Status  int    `json:"status,omitempty"`
	Code    string `json:"code,omitempty"`
	Version int64  `json:"version"`
}

// ApprovalDecision is the body of POST .../approve and .../deny.
type ApprovalDecision struct {
	Reason string `json:"reason,omitempty"`
}
