package api

import "time"

// Paths of our own API. Everything but PathGuestRefusals needs an admin
// credential.
const (
	PathV1            = "/v1"
	PathGuestRefusals = PathV1 + "/guest/refusals" // POST, attested guests
	PathTickets       = PathV1 + "/tickets"        // GET list, GET /{ticket}
	PathTicketGroups  = PathV1 + "/ticketgroups"   // GET list, GET /{id}, PUT|DELETE /{id}/silence
	PathPolicies      = PathV1 + "/policies"       // GET list, GET|PUT|DELETE /{kind}/{id}
	PathRefValues     = PathV1 + "/refvalues"      // GET list, GET|PUT|DELETE /{name...}
	PathResources     = PathV1 + "/resources"      // GET list, PUT|DELETE /{repo}/{type}/{tag}; values are never read back
	PathAudit         = PathV1 + "/audit"          // GET /entries, /checkpoint, /proof...
)

// PathTenant begins the paths of a tenant that has no host name of its own:
// /t/TENANT/kbs/v0/..., /t/TENANT/v1/... Without it the tenant is "default".
const PathTenant = "/t/"

// Finding is one claim that was not as wanted.
type Finding struct {
	Claim   string   `json:"claim"`
	Seen    string   `json:"seen"`
	Wanted  []string `json:"wanted,omitempty"`
	Nearest string   `json:"nearest,omitempty"` // name of the closest reference value
}

// GuestRefusal is what a guest agent tells the broker about a refusal of its
// own, over its attested channel: POST /v1/guest/refusals with the bearer
// token. The host sees only the code and the ticket that comes back.
type GuestRefusal struct {
	Code     string    `json:"code"`
	Object   string    `json:"object"` // image reference, layer digest or resource
	Cause    string    `json:"cause"`
	Findings []Finding `json:"findings,omitempty"`
	Rule     string    `json:"rule,omitempty"` // for example the policy.json scope
}

// GuestRefusalReceipt answers a GuestRefusal.
type GuestRefusalReceipt struct {
	Ticket string `json:"ticket"`
}

// Explanation is everything behind one ticket; for administrators only.
type Explanation struct {
	Ticket   string    `json:"ticket"`
	Code     string    `json:"code"`
	Time     time.Time `json:"time"`
	Stage    string    `json:"stage"` // "auth", "attest", "release", "guest", "admin"
	Platform string    `json:"platform,omitempty"`
	Subject  string    `json:"subject,omitempty"` // guest or admin identity
	Object   string    `json:"object,omitempty"`  // what was asked for
	Cause    string    `json:"cause"`
	Findings []Finding `json:"findings,omitempty"`
	Policy   string    `json:"policy,omitempty"` // kind/id@version
	Rule     string    `json:"rule,omitempty"`
	Line     int       `json:"line,omitempty"`
	Audit    int64     `json:"audit_entry"` // index in the audit log
	// Group names the root cause that this refusal shares with others.
	Group string `json:"group,omitempty"`
}

// TicketGroup is all refusals of one root cause.
type TicketGroup struct {
	ID       string    `json:"id"`
	Code     string    `json:"code"`
	Stage    string    `json:"stage"`
	Platform string    `json:"platform,omitempty"`
	Count    int64     `json:"count"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Cause    string    `json:"cause"` // of the last
	Findings []Finding `json:"findings,omitempty"`
	Policy   string    `json:"policy,omitempty"` // kind/id@version, of the last
	Rule     string    `json:"rule,omitempty"`
	Line     int       `json:"line,omitempty"`
	Tickets  []string  `json:"tickets"` // the newest few
	// Silence says why the group is left out of the listing; absent if it is not.
	Silence *Silence `json:"silence,omitempty"`
}

// Silence leaves a group out of the listing for a time. Its refusals go on
// being recorded, counted and audited.
type Silence struct {
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"` // at most 90 days from Since
	Author string    `json:"author,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// AuditEntry is one leaf of the audit log. Its leaf hash covers the canonical
// JSON (RFC 8785) of the entry.
type AuditEntry struct {
	Index    int64             `json:"index"`
	Tenant   string            `json:"tenant,omitempty"` // "" is the tenant "default"
	Time     time.Time         `json:"time"`
	Kind     AuditKind         `json:"kind"`
	Decision string            `json:"decision"` // "allow", "deny", "error", "change"
	Code     string            `json:"code,omitempty"`
	Ticket   string            `json:"ticket,omitempty"`
	Subject  string            `json:"subject,omitempty"`
	Object   string            `json:"object,omitempty"`
	Details  map[string]string `json:"details,omitempty"`
}

// Problem is the error body of /v1 (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"` // only for authenticated administrators
	Code   string `json:"code"`
	Ticket string `json:"ticket,omitempty"`
}
