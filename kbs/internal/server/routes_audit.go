package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// auditPage is the form of GET /v1/audit/entries; the handler writes it by
// hand, because the leaves must go out exactly as they were hashed.
type auditPage struct {
	Entries  []api.AuditEntry `json:"entries"`            // from "first" on at the earliest
	First    int64            `json:"first,omitempty"`    // that is not archived
	Size     int64            `json:"size"`               // of the log
	Continue string           `json:"continue,omitempty"` // of the next page; absent on the last one
}

// auditProof has the hashes of an inclusion or consistency proof (RFC 6962).
type auditProof struct {
	Proof [][]byte `json:"proof"` // standard base64
}

func auditRoutes() []Route {
	number := func(name, summary string) Query { return Query{name, summary, int64(0)} }
	text := func(name, summary string) Query { return Query{name, summary, ""} }
	plain := ok(rawBody("text/plain; charset=utf-8"))
	return []Route{
		{Pattern: "GET " + api.PathAudit + "/entries", ID: "auditEntries", Summary: "Read the leaves of the audit log: all, as an auditor of the broker, or those of one tenant",
			Query: []Query{
				number("from", "index of the first (0)"), number("limit", "at most this many, from 1 to 1000 (100)"),
				text("continue", "where the page before said to go on"),
				text("kind", "only this kind; policy.* for all that begin so"), text("decision", "only allow, deny, error or change"),
				text("tenant", "only this tenant"), text("subject", "only this subject; with * at its end all that begin so"),
				text("object", "only this object; with * at its end all that begin so"), text("code", "only this code of refusal"),
				text("since", "not before this time (RFC 3339)"), text("until", "before this time (RFC 3339)"),
			},
			Codes: codes(fault.AuditDamaged), Access: auditor, On: OnAdmin, Answers: ok(jsonBody(auditPage{})), admin: (*Server).auditEntries},
		{Pattern: "GET " + api.PathAudit + "/checkpoint", ID: "auditCheckpoint", Summary: "Sign the head of the audit log",
			Codes: codes(fault.AuditDamaged), Access: auditor, On: OnAdmin, Answers: plain, admin: (*Server).auditCheckpoint},
		{Pattern: "GET " + api.PathAudit + "/key", ID: "auditKey", Summary: "Read the key that verifies checkpoints",
			Codes: codes(fault.AuditDamaged), Access: auditor, On: OnAdmin, Answers: plain, admin: (*Server).auditKey},
		{Pattern: "GET " + api.PathAudit + "/keys", ID: "auditKeys", Summary: "Read how that key was handed over from older ones",
			Codes: codes(fault.AuditDamaged), Access: auditor, On: OnAdmin, Answers: ok(jsonBody(api.AuditKeys{})), admin: (*Server).auditKeys},
		{Pattern: "POST " + api.PathAudit + "/key/rotation", ID: "rotateAuditKey", System: true, Change: "keys.rotate", Summary: "Replace the key that signs checkpoints",
			Request: jsonBody(api.AuditKeyRotation{}, "current"), Codes: codes(fault.Conflict, fault.AuditDamaged),
			Access: owner, On: OnAdmin, Answers: ok(jsonBody(api.AuditKeys{})), admin: (*Server).rotateAuditKey},
		{Pattern: "GET " + api.PathAudit + "/archive", ID: "auditArchived", Summary: "Read up to where the log is archived, and the peaks of that tree",
			Codes: codes(fault.AuditDamaged), Access: auditor, On: OnAdmin, Answers: ok(jsonBody(api.AuditArchived{})), admin: (*Server).auditArchived},
		{Pattern: "POST " + api.PathAudit + "/archive", ID: "archiveAudit", System: true, Change: "audit.archive", Summary: "Keep no entries any more that the caller has in files",
			Request: jsonBody(api.AuditArchiving{}, "size", "root"), Codes: codes(fault.Conflict, fault.AuditDamaged),
			Access: owner, On: OnAdmin, Answers: ok(jsonBody(api.AuditArchived{})), admin: (*Server).archiveAudit},
		{Pattern: "GET " + api.PathAudit + "/inclusion", ID: "auditInclusion", Summary: "Prove that a leaf is in the log",
			Query: []Query{number("index", "index of the leaf"), number("size", "size of the log")},
			Codes: codes(fault.AuditDamaged), Access: auditor, On: OnAdmin, Answers: ok(jsonBody(auditProof{})), admin: (*Server).auditInclusion},
		{Pattern: "GET " + api.PathAudit + "/consistency", ID: "auditConsistency", Summary: "Prove that the log only grew",
			Query: []Query{number("old", "the older size"), number("new", "the newer size")},
			Codes: codes(fault.AuditDamaged), Access: auditor, On: OnAdmin, Answers: ok(jsonBody(auditProof{})), admin: (*Server).auditConsistency},
	}
}
