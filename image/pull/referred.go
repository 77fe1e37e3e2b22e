package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// referred are the wrapped keys that travel beside an image. They are looked for
// only when those in the signed manifest open nothing, and once for all layers.
type referred struct {
	src     registry.Source
	subject digest.Digest

	once  sync.Once
	found keyset.Found
	err   error
}

func (r *referred) keys(ctx context.Context, layer digest.Digest) ([]crypt.WrappedKey, error) {
	r.once.Do(func() { r.found, r.err = keyset.Fetch(ctx, r.src, r.subject) })
	keys := r.found.Keys[layer]
	if r.err == nil && len(keys) == 0 && len(r.found.Broken) > 0 {
		return nil, fmt.Errorf("key sets that cannot be read: %s", strings.Join(r.found.Broken, "; "))
	}
	return keys, r.err
}

// unwrap tries the packets of the layer in order, those of the manifest first.
func (p *Puller) unwrap(ctx context.Context, lp layerPlan) (crypt.Private, error) {
	if p.cfg.Unwrapper == nil {
		return crypt.Private{}, errors.New("the layer is encrypted and nothing can unwrap keys")
	}
	private, why := p.tryKeys(ctx, lp.keys)
	if why == nil {
		return private, nil
	}
	beside, err := lp.referred.keys(ctx, lp.desc.Digest)
	if err != nil || len(beside) == 0 {
		return crypt.Private{}, errors.Join(why, err)
	}
	if private, err = p.tryKeys(ctx, beside); err != nil {
		return crypt.Private{}, errors.Join(why, fmt.Errorf("beside the image: %w", err))
	}
	return private, nil
}

// errNoPacket says that there is nothing to unwrap.
var errNoPacket = errors.New("the layer has no key packet")

func (p *Puller) tryKeys(ctx context.Context, keys []crypt.WrappedKey) (crypt.Private, error) {
	if len(keys) == 0 {
		return crypt.Private{}, errNoPacket
	}
	var errs []error
	for _, wrapped := range keys {
		doc, err := p.cfg.Unwrapper.Unwrap(ctx, wrapped)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		private, err := crypt.ParsePrivate(doc)
		doc.Destroy()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return private, nil
	}
	return crypt.Private{}, errors.Join(errs...)
}
