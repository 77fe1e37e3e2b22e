package api

import (
	"encoding/json"
	"time"
)

// Paths of documents of reference values and of who may sign them.
const (
	PathRefSets = PathV1 + "/refsets" // GET list, POST; GET|DELETE /{id...}
	PathSigners = PathV1 + "/signers" // GET list, GET|PUT|DELETE /{name}
)

// RefValue is one reference value, as policies see it under its name.
//
// Several may vouch for one name: an administrator, and any number of
// documents. What policies get is Value: where all that is in force are lists,
// everything in them; else what came last.
type RefValue struct {
	Name    string          `json:"name"`
	Version int64           `json:"version"`
	Value   json.RawMessage `json:"value"`
	// NotBefore and Expires bound the life of what a PUT says; in answers,
	// Expires is when the last of the sources ends.
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires"`
	Owner     string    `json:"owner,omitempty"` // who answers for the value
	Note      string    `json:"note,omitempty"`
	Author    string    `json:"author,omitempty"` // of the last change
	Time      time.Time `json:"time"`             // of the last change
	// InForce says whether policies see a value at all.
	InForce bool `json:"in_force"`
	// LastQueried is when a policy last asked for it, to a minute or so.
	LastQueried time.Time   `json:"last_queried,omitzero"`
	Sources     []RefSource `json:"sources,omitempty"`
}

// RefSource is what one source says under a name, and where it comes from.
type RefSource struct {
	Set       string          `json:"set,omitempty"` // "" is an administrator's own word
	Signer    string          `json:"signer,omitempty"`
	Value     json.RawMessage `json:"value"`
	NotBefore time.Time       `json:"not_before,omitzero"`
	Expires   time.Time       `json:"expires"`
	Author    string          `json:"author,omitempty"`
	Time      time.Time       `json:"time"`
	InForce   bool            `json:"in_force"`
}

// RefSet is a document of reference values that was registered as a whole, and
// can be withdrawn as a whole.
type RefSet struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
	Profile string `json:"profile,omitempty"`
	// Signer is the name of the signer whose key verified the document. A
	// document without one has a Reason, in the words of who registered it.
	Signer    string    `json:"signer,omitempty"`
	Reason    string    `json:"unsigned_reason,omitempty"`
	SHA256    string    `json:"sha256"` // of the document, in hex
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Names     []string  `json:"names"`
	// Provenance is what the values were made from, if the document says it.
	Provenance []RefOrigin `json:"provenance,omitempty"`
	Author     string      `json:"author,omitempty"`
	Time       time.Time   `json:"time"`
}

// RefOrigin is a file that reference values were made from.
type RefOrigin struct {
	Name   string `json:"name"`   // for example kernel
	SHA256 string `json:"sha256"` // in hex
}

// Signer may sign documents of reference values.
type Signer struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	// PublicKey is PEM: SPKI, or a certificate whose key counts and nothing
	// else; Ed25519, P-256 or P-384.
	PublicKey string `json:"public_key"`
	// Prefixes begin the names that the signer may vouch for; "" is every name.
	Prefixes []string  `json:"prefixes"`
	Author   string    `json:"author,omitempty"`
	Time     time.Time `json:"time"`
}
