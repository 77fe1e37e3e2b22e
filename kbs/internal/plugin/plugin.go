// Package plugin is what the broker serves under /kbs/v0/<name> beside the
// resources (kbs-protocol 8): a plugin says who may ask, and answers; whether
// a guest gets the answer is for the policy, and that it got it is in the log
// before it leaves.
package plugin

import (
	"context"
	"encoding/json"
)

// MaxAnswer bounds what a plugin may answer, in bytes.
const MaxAnswer = 1 << 20

// Call is one request to a plugin.
type Call struct {
	Method string
	Path   []string // behind the plugin's name
	Query  map[string]string
	Body   []byte
	Tenant string
	Claims json.RawMessage // of the guest's verified token; nil for an administrator
}

// Plugin answers calls. It is safe for concurrent use. Errors that carry no
// code of package fault are the plugin's own trouble.
type Plugin interface {
	// NeedsAdmin reports whether a call is for administrators; if not, it is
	// for attested guests whom the resource policy allows it.
	NeedsAdmin(ctx context.Context, c Call) (bool, error)
	// Encrypts reports whether the answer is encrypted to the guest's key.
	Encrypts(ctx context.Context, c Call) (bool, error)
	Handle(ctx context.Context, c Call) ([]byte, error)
}
