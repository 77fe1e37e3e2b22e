package hub

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// The types of tokens (guest-protocol 7.1).
const (
	TokenKBS = "kbs"     // of the broker
	TokenAS  = "coco_as" // of an Attestation Service
)

// Tokens is what workloads are given to show to others.
type Tokens struct {
	// Service gives tokens of type coco_as; nil if no Attestation Service is
	// configured.
	Service func(ctx context.Context) (secret.Bytes, error)
	// UnsafeKeyPairs gives a token of type kbs with the private key that answers
	// to it are sealed to, as the field does. Who reads it can have from the
	// broker what the guest can, for as long as the token lives, from anywhere.
	UnsafeKeyPairs bool
}

// Token returns a token of the named type. Of "kbs" it is the JSON of
// guest-protocol 7.1, without the key pair unless [Tokens] says otherwise; of
// "coco_as" the bare token. Errors are *fault.Fault with a ticket.
func (h *Hub) Token(ctx context.Context, kind string) (secret.Bytes, error) {
	t, err := h.token(ctx, kind)
	if err != nil {
		return secret.Bytes{}, h.refuser.Refuse(ctx, ObjectToken, kind, err)
	}
	return t, nil
}

func (h *Hub) token(ctx context.Context, kind string) (secret.Bytes, error) {
	switch {
	case kind == TokenAS && h.tokens.Service != nil:
		return h.tokens.Service(ctx)
	case kind == TokenAS:
		return secret.Bytes{}, fault.Newf(fault.Unavailable, "token_configs.coco_as of aa.toml names no Attestation Service")
	case kind != TokenKBS:
		return secret.Bytes{}, fault.Newf(fault.InvalidRequest, "there is no token type %.64q", kind)
	case h.broker == nil:
		return secret.Bytes{}, errNoBroker()
	case h.tokens.UnsafeKeyPairs:
		return h.broker.TokenWithKey(ctx)
	}
	return h.broker.WorkloadToken(ctx)
}

// Renew attests anew, if this guest has attested. Errors are *fault.Fault.
func (h *Hub) Renew(ctx context.Context) error {
	if h.broker == nil {
		return errNoBroker()
	}
	return h.broker.Renew(ctx)
}

// Forget drops the tokens that the hub has, and their keys, and its logins at
// other services.
func (h *Hub) Forget() {
	h.services.Close()
	if h.broker != nil {
		h.broker.Forget()
	}
}
