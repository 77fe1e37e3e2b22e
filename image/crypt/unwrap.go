package crypt

import (
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A KeyUnwrapper turns a wrapped key back into the private layer options
// (guest-protocol 11.3 and 11.1): the JSON that holds the layer's symmetric key
// and nonce. The guest agent implements it over the broker, tools over local
// keys. To a packet of a kind that it does not open it answers with an error
// that is [ErrScheme].
type KeyUnwrapper interface {
	Unwrap(ctx context.Context, w WrappedKey) (secret.Bytes, error)
}

// ErrScheme says that a key packet is not of a kind that an unwrapper opens.
var ErrScheme = errors.New("key packets of this kind are not opened here")

// A Chain asks one unwrapper after the other.
type Chain []KeyUnwrapper

// Unwrap returns the first answer; without any, the errors of those that know
// packets of this kind.
func (c Chain) Unwrap(ctx context.Context, w WrappedKey) (secret.Bytes, error) {
	var errs []error
	for _, u := range c {
		doc, err := u.Unwrap(ctx, w)
		if err == nil {
			return doc, nil
		}
		if !errors.Is(err, ErrScheme) {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return secret.Bytes{}, schemeError(w)
	}
	return secret.Bytes{}, errors.Join(errs...)
}

func schemeError(w WrappedKey) error {
	if w.Scheme == schemePGP {
		return fmt.Errorf("%.40q, of OpenPGP: %w: only the tool that wrote them knows their keys, and can encrypt the image anew for others", w.Scheme, ErrScheme)
	}
	return fmt.Errorf("%.40q: %w", w.Scheme, ErrScheme)
}

// KEKs unwraps packets of key providers with the key-encrypting keys that the
// function finds by the normalised key ID. What it returns is not destroyed.
type KEKs func(ctx context.Context, kid string) (secret.Bytes, error)

// Unwrap opens a packet of a key provider.
func (find KEKs) Unwrap(ctx context.Context, w WrappedKey) (secret.Bytes, error) {
	if !w.Scheme.IsProvider() {
		return secret.Bytes{}, schemeError(w)
	}
	p, err := ParsePacket(w.Packet)
	if err != nil {
		return secret.Bytes{}, err
	}
	kek, err := find(ctx, p.KID)
	if err != nil {
		return secret.Bytes{}, err
	}
	return p.Open(kek)
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
