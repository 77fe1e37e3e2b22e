package api

// AuditKeys is how the key came about that signs the checkpoints of the audit
// log: GET /v1/audit/keys.
type AuditKeys struct {
	Current string `json:"current"` // in the verifier form of signed notes
	// Handovers are signed notes in which each key names the next one, the
	// oldest first. They are empty as long as the first key is in force.
	Handovers []string `json:"handovers,omitempty"`
}

// AuditKeyRotation asks for a new key: POST /v1/audit/key/rotation. Current is
// the key that the caller wants to replace; if it was replaced already, that
// is a conflict.
type AuditKeyRotation struct {
	Current string `json:"current"`
}

// AuditArchived is the beginning of the log whose entries lie in somebody's files:
// GET /v1/audit/archive. The log goes on from the peaks of their tree.
type AuditArchived struct {
	Size  int64    `json:"size"`            // entries, from the first on
	Root  []byte   `json:"root"`            // of their tree (RFC 6962 section 2.1)
	Peaks [][]byte `json:"peaks,omitempty"` // of it, the largest first
	// Limit is up to where all sinks have confirmed: what lies beyond is not
	// archived. It is absent where there are none.
	Limit *int64 `json:"limit,omitempty"`
}

// AuditArchiving asks the broker to keep no entries below Size: POST
// /v1/audit/archive. Root is the hash of the tree of these entries, and shows that
// the caller has them.
type AuditArchiving struct {
	Size int64  `json:"size"`
	Root []byte `json:"root"`
}
