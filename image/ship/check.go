package ship

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// check reads back what was written as a guest will: manifest, packets, key,
// HMAC; and what comes out must be the blob that went in. An image that cannot
// be opened is found here, not by the first guest.
func (e *encryption) check(ctx context.Context, to *place, written []Written) error {
	layers, err := lockedLayers(ctx, to.source, written)
	if err != nil {
		return fmt.Errorf("read back what was written: %w", err)
	}
	plain := map[digest.Digest]digest.Digest{} // by the encrypted blob's
	for was, s := range e.sealed {
		plain[s.desc.Digest] = was
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(e.o.Parallel)
	for n, l := range layers {
		group.Go(func() error {
			if err := e.checkLayer(ctx, to.source, n, l, plain[l.Digest]); err != nil {
				return fmt.Errorf("check what was written: layer %s: %w", l.Digest, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// lockedLayer is an encrypted layer with the packets that travel beside it.
type lockedLayer struct {
	ocispec.Descriptor
	beside []crypt.WrappedKey
}

// lockedLayers reads the manifests and returns their different layers.
func lockedLayers(ctx context.Context, src registry.Source, written []Written) ([]lockedLayer, error) {
	seen := map[digest.Digest]bool{}
	var all []lockedLayer
	for _, w := range written {
		m, err := src.Manifest(ctx, w.Digest)
		if err != nil {
			return nil, err
		}
		image, err := m.Image()
		if err != nil {
			return nil, err
		}
		beside, err := keyset.Fetch(ctx, src, m.Digest)
		if err != nil {
			return nil, err
		}
		for _, l := range image.Layers {
			if !seen[l.Digest] {
				seen[l.Digest] = true
				all = append(all, lockedLayer{Descriptor: l, beside: beside.Keys[l.Digest]})
			}
		}
	}
	return all, nil
}

func (e *encryption) checkLayer(ctx context.Context, src registry.Source, n int, l lockedLayer, want digest.Digest) error {
	pub, keys, err := crypt.ParseAnnotations(l.Annotations)
	if err != nil {
		return err
	}
	priv, err := e.open(ctx, append(keys, l.beside...))
	if err != nil {
		return err
	}
	defer priv.Key.Destroy()
	rc, err := src.Blob(ctx, l.Descriptor)
	if err != nil {
		return err
	}
	defer func() { _ = rc.Close() }()
	at := Event{Phase: PhaseChecking, Layer: n, Layers: e.layers, Digest: l.Digest, Total: l.Size, All: e.all}
	dec, err := crypt.NewDecrypter(e.o.meter(rc, at), pub, priv)
	if err != nil {
		return err
	}
	got := want.Algorithm().Digester()
	if _, err := io.Copy(got.Hash(), dec); err != nil {
		return err
	}
	if got.Digest() != want {
		return fault.Newf(fault.ImageCorrupt, "it decrypts to %s, not to %s", got.Digest(), want)
	}
	at.Phase, at.Bytes = PhaseChecked, l.Size
	e.o.tell(at)
	return nil
}

// open unwraps with the key that guests will get.
func (e *encryption) open(ctx context.Context, keys []crypt.WrappedKey) (crypt.Private, error) {
	kid, err := crypt.NormalizeKID(e.o.KID)
	if err != nil {
		return crypt.Private{}, err
	}
	unwrap := crypt.KEKs(func(_ context.Context, id string) (secret.Bytes, error) {
		if id != kid {
			return secret.Bytes{}, fmt.Errorf("the packet is for the key %s", id)
		}
		return e.o.KEK, nil
	})
	errs := []error{errors.New("no key packet opens it")}
	for _, w := range keys {
		doc, err := unwrap.Unwrap(ctx, w)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer doc.Destroy()
		return crypt.ParsePrivate(doc)
	}
	return crypt.Private{}, errors.Join(errs...)
}
