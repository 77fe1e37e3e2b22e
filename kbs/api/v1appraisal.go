package api

import "encoding/json"

const (
	// PathAppraisals has POST: what the broker makes of evidence.
	PathAppraisals = PathV1 + "/appraisals"
	// PathImagePolicies has GET /{repo}/{type}/{tag}: a resource that is an image
	// policy, which is no secret.
	PathImagePolicies = PathV1 + "/image-policies"
)

// AppraisalRequest is evidence that an administrator wants to see judged, as if a
// guest had come with it. Nothing is released for it, and no token is made.
type AppraisalRequest struct {
	Policy   string              `json:"policy,omitempty"` // id of the attestation policies, without class; the default one otherwise
	Evidence []AppraisalEvidence `json:"evidence"`         // that of the CPU first
}

// AppraisalEvidence is that of one attester, or of several devices of a kind.
type AppraisalEvidence struct {
	Platform string          `json:"platform"`
	Data     json.RawMessage `json:"data"`
	// ReportData is what the evidence must be bound to, in base64.
	ReportData []byte `json:"report_data"`
	InitData   string `json:"init_data,omitempty"` // the document (TOML); none: the evidence must not have any
}

// Appraisal is what the broker makes of evidence that verified and that nobody
// has revoked.
type Appraisal struct {
	Claims    json.RawMessage     `json:"claims"` // those of the token that such a guest would have, as policies read them
	Attesters []AppraisedAttester `json:"attesters"`
}

// AppraisedAttester is one attester of an [Appraisal].
type AppraisedAttester struct {
	Name      string            `json:"name"` // of its submod, such as cpu0
	Platform  string            `json:"platform"`
	Status    string            `json:"status"` // such as affirming
	Policy    string            `json:"policy"` // the version that judged
	Root      string            `json:"root"`
	Simulated bool              `json:"simulated,omitempty"` // that root
	Waived    map[string]string `json:"waived,omitempty"`    // what the broker's configuration leaves out, and why
	// Rule, Line and Findings say what stands against an attester that is not found
	// affirming, as far as it can be told.
	Rule     string    `json:"rule,omitempty"`
	Line     int       `json:"line,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
}
