package api

import "time"

// PathLeases has GET list and GET /{id}.
const PathLeases = PathV1 + "/leases"

// Lease is one object that was given to one guest. A guest is what its evidence
// shows: the same chip, software and start data are the same guest.
type Lease struct {
	ID       string `json:"id"`
	Guest    string `json:"guest"`
	Platform string `json:"platform,omitempty"`
	TokenID  string `json:"token_id"` // of the token that it was last given for
	Object   string `json:"object"`   // as in the audit log: resource/REPO/TYPE/TAG
	Version  int64  `json:"version,omitempty"`
	// Since is when the guest first got it, Renewed when it got it first with the
	// token that it has, and Until when that token ends.
	Since   time.Time `json:"since"`
	Renewed time.Time `json:"renewed"`
	Until   time.Time `json:"until"`
	// Claims are the single values of the evidence, by their paths.
	Claims map[string]string `json:"claims,omitempty"`
	// State is active, ended or revoked, and Reason why it is not active.
	State  LeaseState `json:"state,omitempty"`
	Reason string     `json:"reason,omitempty"`
}

// LeaseState is what became of a lease.
type LeaseState string

// The states of a lease.
const (
	LeaseActive  LeaseState = "active"
	LeaseEnded   LeaseState = "ended"
	LeaseRevoked LeaseState = "revoked"
)

// LeasePage is a part of the list of leases.
type LeasePage struct {
	Items []Lease `json:"items"`
	// Next is the id to go on after; "" if nothing follows. A page may be short,
	// or empty, and have a Next.
	Next string `json:"next,omitempty"`
}
