package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// auditPage is the form of GET /v1/audit/entries; the handler writes it by
// hand, because the leaves must go out exactly as they were hashed.
type auditPage struct {
	Entries []api.AuditEntry `json:"entries"`
	// Next is the index to go on from, for who sees the entries of one tenant
	// only. It is the size of the log when there is no more.
	Next int64 `json:"next,omitempty"`
}

// auditProof has the hashes of an inclusion or consistency proof (RFC 6962).
type auditProof struct {
	Proof [][]byte `json:"proof"` // standard base64
}

func auditRoutes() []Route {
	number := func(name, summary string) Query { return Query{name, summary, int64(0)} }
	text := ok(rawBody("text/plain; charset=utf-8"))
	return []Route{
		{Pattern: "GET " + api.PathAudit + "/entries", ID: "auditEntries", Summary: "Read the leaves of the audit log: all, as an auditor of the broker, or those of one tenant",
			Query:  []Query{number("from", "index of the first (0)"), number("limit", "at most this many, from 1 to 1000 (100)")},
			Access: auditor, On: OnAdmin, Answers: ok(jsonBody(auditPage{})), admin: (*Server).auditEntries},
		{Pattern: "GET " + api.PathAudit + "/checkpoint", ID: "auditCheckpoint", Summary: "Sign the head of the audit log",
			Access: auditor, On: OnAdmin, Answers: text, admin: (*Server).auditCheckpoint},
		{Pattern: "GET " + api.PathAudit + "/key", ID: "auditKey", Summary: "Read the key that verifies checkpoints",
			Access: auditor, On: OnAdmin, Answers: text, admin: (*Server).auditKey},
		{Pattern: "GET " + api.PathAudit + "/keys", ID: "auditKeys", Summary: "Read how that key was handed over from older ones",
			Access: auditor, On: OnAdmin, Answers: ok(jsonBody(api.AuditKeys{})), admin: (*Server).auditKeys},
		{Pattern: "POST " + api.PathAudit + "/key/rotation", ID: "rotateAuditKey", System: true, Change: "keys.rotate", Summary: "Replace the key that signs checkpoints",
			Request: jsonBody(api.AuditKeyRotation{}, "current"), Codes: codes(fault.Conflict),
			Access: owner, On: OnAdmin, Answers: ok(jsonBody(api.AuditKeys{})), admin: (*Server).rotateAuditKey},
		{Pattern: "GET " + api.PathAudit + "/inclusion", ID: "auditInclusion", Summary: "Prove that a leaf is in the log",
			Query:  []Query{number("index", "index of the leaf"), number("size", "size of the log")},
			Access: auditor, On: OnAdmin, Answers: ok(jsonBody(auditProof{})), admin: (*Server).auditInclusion},
		{Pattern: "GET " + api.PathAudit + "/consistency", ID: "auditConsistency", Summary: "Prove that the log only grew",
			Query:  []Query{number("old", "the older size"), number("new", "the newer size")},
			Access: auditor, On: OnAdmin, Answers: ok(jsonBody(auditProof{})), admin: (*Server).auditConsistency},
	}
}
