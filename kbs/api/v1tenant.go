package api

import "time"

// Paths of what belongs to the broker as a whole. They exist only for the
// tenant "default".
const (
	PathTenants = PathV1 + "/tenants" // GET list, GET|PUT|DELETE /{tenant}
)

// States of a tenant. One that is not active is not there for anybody but the
// owners of the broker.
const (
	TenantActive    = "active"
	TenantSuspended = "suspended"
	TenantDeleting  = "deleting" // its records are being destroyed; there is no way back
)

// Tenant is one of those who share a broker. Version 0 on PUT means "must not
// exist", -1 "whatever is there"; a stale version is a conflict.
type Tenant struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	// State is "" or "active", or "suspended", on PUT.
	State string `json:"state,omitempty"`
	// Hosts are host names whose requests are for this tenant, whatever their
	// path; without a port.
	Hosts  []string     `json:"hosts,omitempty"`
	Quotas TenantQuotas `json:"quotas,omitzero"`
	// Approvals are the changes that need a second person: policy.put,
	// policy.*, or * for all of them.
	Approvals []string     `json:"approvals,omitempty"`
	Author    string       `json:"author,omitempty"`
	Created   time.Time    `json:"created,omitzero"`
	Time      time.Time    `json:"time,omitzero"`
	Usage     *TenantUsage `json:"usage,omitempty"` // only when one is read
}

// TenantQuotas limit one tenant; 0 is the broker's default, -1 is no limit.
type TenantQuotas struct {
	Resources int64 `json:"resources,omitempty"`
	Bytes     int64 `json:"bytes,omitempty"` // of all versions of all resources, sealed
	Policies  int64 `json:"policies,omitempty"`
	RefValues int64 `json:"refvalues,omitempty"`
	// Sessions and Releases are per minute, on each replica.
	Sessions int64 `json:"sessions_per_minute,omitempty"`
	Releases int64 `json:"releases_per_minute,omitempty"`
}

// TenantUsage is how much of its quotas a tenant uses.
type TenantUsage struct {
	Resources int64 `json:"resources"`
	Bytes     int64 `json:"bytes"`
	Policies  int64 `json:"policies"`
	RefValues int64 `json:"refvalues"`
}
