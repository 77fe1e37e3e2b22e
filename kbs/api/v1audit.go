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
