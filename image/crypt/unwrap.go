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

// Image is what a key is wanted for: whoever unwraps may have to say so, because
// a broker can hold a key for one image alone.
type Image struct {
	Digest    string // of the manifest
	Reference string // as it was asked for
}

type imageKey struct{}

// WithImage returns a context for the unwrapping of an image's keys.
func WithImage(ctx context.Context, i Image) context.Context {
	return context.WithValue(ctx, imageKey{}, i)
}

// ImageOf returns the image that keys are unwrapped for, if it is known.
func ImageOf(ctx context.Context) (Image, bool) {
	i, ok := ctx.Value(imageKey{}).(Image)
	return i, ok
}
