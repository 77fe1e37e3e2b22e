package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// providerKBS is the provider of sealed secrets that lie at the broker. Names of
// providers are compared without case (guest-protocol 10.3).
const providerKBS = "kbs"

// maxJWK bounds a key that verifies sealed secrets, in bytes.
const maxJWK = 4 << 10

// Sealed is how sealed secrets are verified.
type Sealed struct {
	// KeyDir has public keys whose ID is no resource URI, one JWK in a file of
	// that name (guest-protocol 10.1). Empty: there are none.
	KeyDir string
	// UnsafeUnsigned opens sealed secrets that nobody signed: whoever writes the
	// pod's specification, the host above all, then chooses which secret of the
	// guest is delivered where.
	UnsafeUnsigned bool
	// Credentials has the resources of [[credentials]] by the paths that they are
	// written to, under which secrets of the field name them.
	Credentials map[string]string
}

// Unseal returns the value of a sealed secret (guest-protocol 10). The caller
// owns it. Errors are *fault.Fault with a ticket.
func (h *Hub) Unseal(ctx context.Context, text string) (secret.Bytes, error) {
	name, value, err := h.unseal(ctx, text)
	if err != nil {
		return secret.Bytes{}, h.refuser.Refuse(ctx, ObjectSealed, name, err)
	}
	return value, nil
}

// unseal also returns the name in the sealed secret, as far as it is known.
func (h *Hub) unseal(ctx context.Context, text string) (string, secret.Bytes, error) {
	p, err := h.openSealed(ctx, text)
	if err != nil {
		if _, coded := errors.AsType[*fault.Fault](err); coded {
			return "", secret.Bytes{}, err
		}
		return "", secret.Bytes{}, fault.New(fault.SealedInvalid, err)
	}
	var value secret.Bytes
	switch {
	case !strings.EqualFold(p.Provider, providerKBS):
		value, err = h.openElsewhere(ctx, p)
	case p.Type == sealed.Envelope:
		value, err = h.openEnvelope(ctx, p.Envelopment)
	default:
		value, err = h.fetchForWorkload(ctx, p.Name)
	}
	return p.Object(), value, err
}

// openElsewhere opens a secret of another provider. Its settings say where a
// credential of the guest's goes, so the owner must have signed them.
func (h *Hub) openElsewhere(ctx context.Context, p *sealed.Payload) (secret.Bytes, error) {
	if h.sealed.UnsafeUnsigned && kms.Known(p.Provider) {
		return secret.Bytes{}, fault.Newf(fault.Unsupported,
			"sealed secrets of provider %.64q are opened only where signatures are verified: who writes one chooses who gets the credential", p.Provider)
	}
	return h.services.Open(ctx, p)
}

// openEnvelope opens an envelope whose key is under a key that is a resource.
func (h *Hub) openEnvelope(ctx context.Context, e *sealed.Envelopment) (secret.Bytes, error) {
	wrapped, err := e.Key()
	if err != nil {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, err)
	}
	kek, err := h.fetchForWorkload(ctx, e.KeyID)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer kek.Destroy()
	key, err := sealed.OpenKey(kek, wrapped)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, err)
	}
	defer key.Destroy()
	value, err := e.Open(key)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, err)
	}
	return value, nil
}

func (h *Hub) openSealed(ctx context.Context, text string) (*sealed.Payload, error) {
	if h.sealed.UnsafeUnsigned {
		return sealed.UnsafeOpenUnsigned(text)
	}
	return sealed.Open(ctx, text, h.sealingKey)
}

// sealingKey finds a key by its ID, which the host can choose: the broker
// decides what this guest may have, and files lie in one directory.
func (h *Hub) sealingKey(ctx context.Context, kid string) ([]byte, error) {
	if strings.HasPrefix(kid, "kbs:") || strings.HasPrefix(kid, "kbs+") {
		value, err := h.fetchForWorkload(ctx, kid)
		if err != nil {
			return nil, err
		}
		defer value.Destroy()
		return append([]byte(nil), value.Reveal()...), nil // public
	}
	if h.sealed.KeyDir == "" {
		return nil, errors.New("its ID is no resource URI")
	}
	root, err := os.OpenRoot(h.sealed.KeyDir)
	if err != nil {
		return nil, fmt.Errorf("its ID is no resource URI, and there is no directory of keys: %w", err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.Open(kid)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxJWK))
}
