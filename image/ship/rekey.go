package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// KeyPlace says where the wrapped keys of an image travel.
type KeyPlace string

// KeysBeside is a referrer (package keyset): the image's digest and signatures
// stay. KeysInManifest are the layers' annotations, which every reader of the
// field knows: the digest changes. KeysWhereTheyAre is beside for an image that
// has keys there or none in its manifest, and in the manifest for the others.
const (
	KeysWhereTheyAre KeyPlace = ""
	KeysBeside       KeyPlace = "beside"
	KeysInManifest   KeyPlace = "manifest"
)

// RekeyOptions say who shall be able to open an image from now on.
type RekeyOptions struct {
	Recipients []crypt.Recipient
	Unwrapper  crypt.KeyUnwrapper // opens what the image has now
	Replace    bool               // the recipients of before are left out
	Keys       KeyPlace
	Registry   registry.Config
	Platform   registry.Platform // of a multi-platform image; zero: linux on this architecture
}

// RekeyResult tells what happened.
type RekeyResult struct {
	Reference string   `json:"reference"` // by digest where the destination is a registry
	Digest    string   `json:"digest"`    // of the manifest, now
	Before    string   `json:"before"`    // of the manifest, before; another one: it has to be signed again
	Keys      KeyPlace `json:"keys"`
	KeySet    string   `json:"keySet,omitempty"` // digest of the referrer
	Layers    int      `json:"layers"`           // that are encrypted
	// Left says where keys for readers of before may still be found, although they
	// were to be replaced. Whoever had a key may have kept it in any case.
	Left []string `json:"left,omitempty"`
}

// Rekey wraps the keys of an encrypted image for other recipients. The layers
// stay as they are, and none is downloaded.
func Rekey(ctx context.Context, ref string, o RekeyOptions) (RekeyResult, error) {
	if len(o.Recipients) == 0 || o.Unwrapper == nil {
		return RekeyResult{}, errors.New("rekey needs recipients, and what opens the keys of now")
	}
	client, err := registry.NewClient(o.Registry)
	if err != nil {
		return RekeyResult{}, err
	}
	at, err := openPlace(client, ref, false)
	if err != nil {
		return RekeyResult{}, err
	}
	if o.Platform == (registry.Platform{}) {
		o.Platform = registry.Native()
	}
	resolved, err := registry.Resolve(ctx, at.source, at.version, o.Platform)
	if err != nil {
		return RekeyResult{}, err
	}
	beside, err := keyset.Fetch(ctx, at.source, resolved.Manifest.Digest)
	if err != nil {
		return RekeyResult{}, err
	}
	r := &rekeying{o: o, at: at, image: resolved, beside: beside, wrapped: keyset.Set{}, inManifest: keyset.Set{}}
	named := crypt.Image{Digest: resolved.Manifest.Digest.String(), Reference: ref}
	if err := r.wrap(crypt.WithImage(ctx, named)); err != nil {
		return RekeyResult{}, err
	}
	if r.place() == KeysBeside {
		return r.toSet(ctx)
	}
	return r.toManifest(ctx)
}

type rekeying struct {
	o          RekeyOptions
	at         *place
	image      *registry.Resolved
	beside     keyset.Found
	inManifest keyset.Set // what the layers' annotations hold
	wrapped    keyset.Set // for the new recipients
}

func (r *rekeying) place() KeyPlace {
	switch {
	case r.o.Keys != KeysWhereTheyAre:
		return r.o.Keys
	case len(r.beside.Manifests) > 0 || len(r.inManifest) == 0:
		return KeysBeside
	}
	return KeysInManifest
}

// wrap opens the keys of all layers and wraps them for the recipients, before
// anything is written.
func (r *rekeying) wrap(ctx context.Context) error {
	encrypted := 0
	for i, l := range r.image.Image.Layers {
		if !strings.HasSuffix(l.MediaType, crypt.MediaSuffix) {
			continue
		}
		encrypted++
		if r.wrapped[l.Digest] != nil {
			continue
		}
		if err := r.wrapLayer(ctx, l); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	if encrypted == 0 {
		return errors.New("the image has no encrypted layer")
	}
	return nil
}

func (r *rekeying) wrapLayer(ctx context.Context, l ocispec.Descriptor) error {
	_, keys, err := crypt.ParseAnnotations(l.Annotations)
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		r.inManifest[l.Digest] = keys
	}
	var errs []error
	for _, w := range slices.Concat(keys, r.beside.Keys[l.Digest]) {
		doc, err := r.o.Unwrapper.Unwrap(ctx, w)
		if err == nil {
			defer doc.Destroy()
			var private crypt.Private
			if private, err = crypt.ParsePrivate(doc); err == nil {
				private.Key.Destroy()
				r.wrapped[l.Digest], err = crypt.WrapFor(doc, r.o.Recipients...)
				return err
			}
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return errors.New("there is no key packet, neither in the manifest nor beside the image")
	}
	return errors.Join(errs...)
}

// toSet stores a new key set and takes those of before away: each new set has
// all that shall be there.
func (r *rekeying) toSet(ctx context.Context) (RekeyResult, error) {
	d := r.image.Manifest.Digest
	m, err := keyset.Push(ctx, r.at, r.image.Manifest.Descriptor(), r.with(r.beside.Keys))
	if err != nil {
		return RekeyResult{}, err
	}
	done := r.result(d)
	done.Keys, done.KeySet = KeysBeside, m.Digest.String()
	for _, old := range r.beside.Manifests {
		if old == m.Digest {
			continue
		}
		if gone, err := registry.Detach(ctx, r.at, d, old); err != nil {
			return done, fmt.Errorf("the new keys are in place, those of before are too: %w", err)
		} else if !gone && r.o.Replace {
			done.Left = append(done.Left, "the key set "+old.String()+", which the registry does not delete")
		}
	}
	if r.o.Replace && len(r.inManifest) > 0 {
		done.Left = append(done.Left, "the manifest itself, which has keys in its annotations")
	}
	return done, nil
}

// with adds the new packets to those that stay. A key ID means one key, so an
// old packet for the same one goes.
func (r *rekeying) with(old keyset.Set) keyset.Set {
	all := maps.Clone(r.wrapped)
	if !r.o.Replace {
		for d := range all {
			stays := slices.DeleteFunc(slices.Clone(old[d]), func(w crypt.WrappedKey) bool { return sameKID(w, r.wrapped[d]) })
			all[d] = slices.Concat(stays, r.wrapped[d])
		}
	}
	return all
}

func sameKID(w crypt.WrappedKey, keys []crypt.WrappedKey) bool {
	name, err := w.Reader()
	return err == nil && w.Scheme.IsProvider() && slices.ContainsFunc(keys, func(k crypt.WrappedKey) bool {
		other, err := k.Reader()
		return err == nil && k.Scheme.IsProvider() && other == name
	})
}

// toManifest writes the manifest again with other annotations.
func (r *rekeying) toManifest(ctx context.Context) (RekeyResult, error) {
	if r.image.Root.Digest != r.image.Manifest.Digest {
		return RekeyResult{}, errors.New("the image is one of an index, which would have to change too: keep its keys beside it, or name its tag")
	}
	if r.at.tag == "" {
		return RekeyResult{}, errors.New("the image is named by its digest, which would change: name its tag, or keep its keys beside it")
	}
	old := keyset.Set{}
	for d := range r.wrapped {
		old[d] = slices.Concat(r.inManifest[d], r.beside.Keys[d])
	}
	keys := r.with(old)
	doc := *r.image.Image
	doc.Layers = slices.Clone(doc.Layers)
	for i, l := range doc.Layers {
		if keys[l.Digest] == nil {
			continue
		}
		added, err := crypt.KeyAnnotations(keys[l.Digest]...)
		if err != nil {
			return RekeyResult{}, fmt.Errorf("layer %d: %w", i, err)
		}
		a := crypt.WithoutKeys(l.Annotations)
		maps.Copy(a, added)
		doc.Layers[i].Annotations = a
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return RekeyResult{}, err
	}
	m, err := r.at.sink.PushManifest(ctx, r.at.tag, r.image.Manifest.MediaType, raw)
	if err != nil {
		return RekeyResult{}, err
	}
	done := r.result(m.Digest)
	done.Keys = KeysInManifest
	if r.o.Replace {
		done.Left = append(done.Left, "the manifest of before, "+done.Before)
	}
	return done, nil
}

func (r *rekeying) result(now digest.Digest) RekeyResult {
	encrypted := 0
	for _, l := range r.image.Image.Layers {
		if r.wrapped[l.Digest] != nil {
			encrypted++
		}
	}
	return RekeyResult{
		Reference: r.at.show(now.String()), Digest: now.String(), Before: r.image.Manifest.Digest.String(), Layers: encrypted,
	}
}
