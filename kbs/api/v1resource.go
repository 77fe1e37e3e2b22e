package api

import "time"

// PathMasterKey is the master key of the whole broker: GET describes it, POST
// /rotate begins a rotation.
const PathMasterKey = PathV1 + "/keys/master"

// What a guest may add to the query of a release: the version that it wants,
// and the image that it wants a key for, by the digest of its manifest and by
// the reference that it was asked to pull.
const (
	QueryVersion        = "version"
	QueryImage          = "image"
	QueryImageReference = "image_reference"
)

// ResourceMeta is what administrators say about a resource. It holds for all
// of its versions.
type ResourceMeta struct {
	Owner       string `json:"owner,omitempty"`
	Purpose     string `json:"purpose,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	// Expires is when the broker stops releasing it; zero is never.
	Expires time.Time         `json:"expires,omitzero"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Images binds a key to what it decrypts: manifest digests (sha256:...) and
	// repositories (registry/path, which holds for what lies below it too).
	// Where there are any, the broker releases the value only to a guest that
	// names an image among them.
	Images []string `json:"images,omitempty"`
	// Hold, if not empty, says why the value is released to nobody for now.
	Hold string `json:"hold,omitempty"`
}

// ResourceInfo describes a resource. There is no way to read a value back as
// an administrator.
type ResourceInfo struct {
	Path string `json:"path"` // repo/type/tag
	// Version counts the changes of the resource, of its value and of what is
	// said about it. A value is known by the version that brought it.
	Version int64  `json:"version"`
	Value   int64  `json:"value_version,omitempty"` // of the value that guests get
	Size    int    `json:"size"`                    // bytes
	Author  string `json:"author,omitempty"`        // of the last change
	// Time is that of the last change.
	Time    time.Time `json:"time"`
	Created time.Time `json:"created,omitzero"`
	ResourceMeta
	// Versions are the values that are kept, the newest first. Lists leave them
	// out.
	Versions []ResourceVersion `json:"versions,omitempty"`
	// Released and LastReleased are counted with some seconds of delay.
	Released     int64     `json:"released,omitempty"`
	LastReleased time.Time `json:"last_released,omitzero"`
	Backend      string    `json:"backend,omitempty"` // "" is the built-in one
}

// ResourceVersion is one value that a resource has or had.
type ResourceVersion struct {
	Version   int64     `json:"version"`
	Size      int       `json:"size"` // bytes
	Author    string    `json:"author,omitempty"`
	Time      time.Time `json:"time"`
	CopyOf    int64     `json:"copy_of,omitempty"`  // what a rollback brought back
	Destroyed time.Time `json:"destroyed,omitzero"` // its value is gone for good
}

// ResourcePage is one page of a list. Continue, if not empty, is the query
// parameter "continue" of the next one; a page may be short, or empty, and yet
// have a next one.
type ResourcePage struct {
	Items    []ResourceInfo `json:"items"`
	Continue string         `json:"continue,omitempty"`
}

// ResourceRollback names the version whose value becomes the current one.
type ResourceRollback struct {
	To int64 `json:"to"`
}

// MasterKey describes the keys that the broker's store is under.
type MasterKey struct {
	Current string           `json:"current"`
	Keys    []MasterKeyState `json:"keys"` // oldest first
	// Rewrap is the walk that puts everything under the current key; absent
	// where there never was a rotation.
	Rewrap *Rewrap `json:"rewrap,omitempty"`
}

// MasterKeyState is one key that the store is or was under.
type MasterKeyState struct {
	ID      string    `json:"id"`
	State   string    `json:"state"` // "current", "opening" or "retired"
	Since   time.Time `json:"since"`
	Retired time.Time `json:"retired,omitzero"`
}

// Rewrap is how far the walk has come.
type Rewrap struct {
	To       string    `json:"to"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Pass     int       `json:"pass"`
	Looked   int       `json:"looked"` // records, in this pass
	Moved    int       `json:"moved"`  // records, in all passes
	// Failed counts records that open under no key; FailedKeys names a few.
	Failed     int      `json:"failed,omitempty"`
	FailedKeys []string `json:"failed_keys,omitempty"`
}

// RotateMasterKey asks for a rotation. To names a key that the broker has; ""
// lets it make one.
type RotateMasterKey struct {
	To string `json:"to,omitempty"`
}
