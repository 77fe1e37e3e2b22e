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

// Answer is what comes of a call.
type Answer struct {
	Body []byte // the caller wipes it where it is a guest's
	// Details are what the audit log keeps of a release beside the name of what
	// was released. They are no secrets.
	Details map[string]string
}

// Plugin answers calls. It is safe for concurrent use. Errors that carry no
// code of package fault are the plugin's own trouble.
type Plugin interface {
	// NeedsAdmin reports whether a call is for administrators; if not, it is
	// for attested guests whom the resource policy allows it.
	NeedsAdmin(ctx context.Context, c Call) (bool, error)
	// Encrypts reports whether the answer is encrypted to the guest's key.
	Encrypts(ctx context.Context, c Call) (bool, error)
	Handle(ctx context.Context, c Call) (Answer, error)
}

// Teller is a plugin that tells the audit log what an administrator's call is
// about, where its path does not say so. It is asked before the call is made.
type Teller interface {
	Tell(c Call) map[string]string
}
