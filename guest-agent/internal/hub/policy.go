package hub

import (
	"context"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// Limits in bytes of what a file:// location may hold.
const (
	maxPolicy = 1 << 20
	maxKey    = 1 << 20 // a key, a keyring, or a root of trust
)

// policySource finds the image policy. It is asked anew for every pull, so a
// policy that changes at the broker is in force with the next container.
// Upstream caches it for the life of the guest (guest-protocol 14.1).
type policySource struct {
	uri    string
	inline []byte
	from   locations
}

// load returns the policy in force. None is a refusal with code
// image_policy_missing; one that cannot be read is policy_error.
func (p policySource) load(ctx context.Context) (*trust.Policy, error) {
	raw := p.inline
	if p.uri != "" {
		var err error
		if raw, err = p.from.public(ctx, p.uri, maxPolicy); err != nil {
			return nil, err
		}
	}
	if len(raw) == 0 {
		return nil, fault.New(fault.ImagePolicyMissing, errors.New("neither image_security_policy_uri nor image_security_policy is set"))
	}
	policy, err := trust.ParsePolicy(raw)
	if err != nil {
		return nil, fault.New(fault.PolicyError, err)
	}
	return policy, nil
}

// key resolves a keyPath of the policy (guest-protocol 15.1). The keys are
// public; what they need is integrity, and both places have it.
func (p policySource) key(ctx context.Context, keyPath string) ([]byte, error) {
	return p.from.public(ctx, keyPath, maxKey)
}
