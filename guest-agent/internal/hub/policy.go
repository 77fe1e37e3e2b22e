package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Limits in bytes of what a file:// location may hold.
const (
	maxPolicy = 1 << 20
	maxKey    = 64 << 10
)

// policySource finds the image policy. It is asked anew for every pull, so a
// policy that changes at the broker is in force with the next container.
// Upstream caches it for the life of the guest (guest-protocol 14.1).
type policySource struct {
	uri    string
	inline []byte
	fetch  func(ctx context.Context, uri string) (secret.Bytes, error)
}

// load returns the policy in force. None is a refusal with code
// image_policy_missing; one that cannot be read is policy_error.
func (p policySource) load(ctx context.Context) (*trust.Policy, error) {
	raw := p.inline
	if p.uri != "" {
		var err error
		if raw, err = p.read(ctx, p.uri, maxPolicy); err != nil {
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
	return p.read(ctx, keyPath, maxKey)
}

func (p policySource) read(ctx context.Context, uri string, limit int64) ([]byte, error) {
	scheme, path, found := strings.Cut(uri, "://")
	switch {
	case !found:
		return readFile(uri, limit)
	case scheme == "file":
		return readFile(path, limit)
	case scheme == "kbs":
		s, err := p.fetch(ctx, uri)
		if err != nil {
			return nil, err
		}
		defer s.Destroy()
		if int64(s.Len()) > limit {
			return nil, fault.Newf(fault.PolicyError, "%s is larger than %d bytes", uri, limit)
		}
		return append([]byte(nil), s.Reveal()...), nil
	}
	return nil, fault.Newf(fault.PolicyError, "location %q: want kbs://, file:// or an absolute path", uri)
}

// readFile reads a file of the guest image, whose integrity is the measured
// root's.
func readFile(path string, limit int64) (data []byte, err error) {
	if !filepath.IsAbs(path) {
		return nil, fault.Newf(fault.PolicyError, "path %q is not absolute", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.PolicyError, err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	if err != nil {
		return nil, fault.New(fault.PolicyError, err)
	}
	return data, nil
}
