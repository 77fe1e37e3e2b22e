package crypt

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A KeyUnwrapper turns the wrapped key packet of a layer annotation back into
// the private layer options (guest-protocol 11.3 and 11.1): the JSON that holds
// the layer's symmetric key and nonce. The guest agent implements it over the
// broker, tools over local keys.
type KeyUnwrapper interface {
	Unwrap(ctx context.Context, packet []byte) (secret.Bytes, error)
}
