package hub

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// lookasideSource finds where GPG signatures lie (guest-protocol 15.2). Like
// the policy it is asked anew for every pull that needs it.
type lookasideSource struct {
	uri    string
	inline []byte
	read   func(ctx context.Context, uri string, limit int) ([]byte, error)
	plain  []string // hosts that may be spoken to without TLS, as registries
}

// load returns nil, nil when nothing is configured. How servers are reached is
// the puller's to say.
func (l lookasideSource) load(ctx context.Context) (*trust.Lookaside, error) {
	raw := l.inline
	if l.uri != "" {
		var err error
		if raw, err = l.read(ctx, l.uri, maxPolicy); err != nil {
			return nil, err
		}
	}
	if len(raw) == 0 {
		return nil, nil
	}
	aside, err := trust.ParseLookaside(raw)
	if err != nil {
		return nil, fault.New(fault.PolicyError, err)
	}
	aside.InsecureHTTPHosts = l.plain
	return aside, nil
}
