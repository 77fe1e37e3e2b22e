package kek

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Bind returns w for one place, such as a tenant: what it wraps opens for no
// other. It is Fenced where w is, and a Rewrapper where w is.
func Bind(w Wrapper, place string) Wrapper {
	b := bound{w, []byte(place)}
	if s, ok := w.(*Set); ok {
		return boundSet{b, s}
	}
	return b
}

type bound struct {
	Wrapper
	to []byte
}

func (b bound) Wrap(ctx context.Context, key secret.Bytes, with []byte) ([]byte, error) {
	return b.Wrapper.Wrap(ctx, key, b.both(with))
}

func (b bound) Unwrap(ctx context.Context, wrapped, with []byte) (secret.Bytes, error) {
	return b.Wrapper.Unwrap(ctx, wrapped, b.both(with))
}

func (b bound) both(with []byte) []byte { return append(b.to[:len(b.to):len(b.to)], with...) }

// boundSet forwards what a Set does beyond wrapping.
type boundSet struct {
	bound
	set *Set
}

var (
	_ Fenced    = boundSet{}
	_ Rewrapper = boundSet{}
)

func (b boundSet) Fence(tx store.Tx, wrapped []byte) error { return b.set.Fence(tx, wrapped) }

func (b boundSet) Catch(ctx context.Context) error { return b.set.Catch(ctx) }

func (b boundSet) Rewrap(ctx context.Context, envelope, with []byte) ([]byte, bool, error) {
	return b.set.Rewrap(ctx, envelope, b.both(with))
}
