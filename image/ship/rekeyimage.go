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

// A rekeying is that of one image, which an index may name.
type rekeying struct {
	o          RekeyOptions
	at         *place
	image      platformImage
	beside     keyset.Found
	inManifest keyset.Set      // what the layers' annotations hold
	wrapped    keyset.Set      // for the new recipients; an entry for each encrypted layer
	removed    map[string]bool // those of o.Remove that were found

	done  RekeyedImage
	now   registry.Manifest
	added digest.Digest // the new key set
	left  []string
}

// blame says of which image an error is, where there are several.
func (r *rekeying) blame(err error) error {
	if r.image.platform == "" {
		return err
	}
	return fmt.Errorf("%s: %w", r.image.platform, err)
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
		if _, twice := r.wrapped[l.Digest]; twice {
			continue
		}
		if err := r.wrapLayer(ctx, l); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	if encrypted == 0 {
		return ErrPlain
	}
	return r.checkRemoved()
}

// checkRemoved looks at what would stay: a name that nobody has is a mistake,
// and so is a layer that nobody could open.
func (r *rekeying) checkRemoved() error {
	if len(r.o.Remove) == 0 {
		return nil
	}
	stays := r.with(r.before())
	for _, name := range r.o.Remove {
		if !r.removed[name] && r.place() == KeysBeside && r.manifestHas([]string{name}) {
			return fmt.Errorf("the packets for %s are in the manifest, which changes only if the keys are kept there", name)
		}
		if !r.removed[name] {
			return fmt.Errorf("no key packet is for %s: image inspect shows who they are for", name)
		}
	}
	for d, keys := range stays {
		if len(keys) == 0 {
			return fmt.Errorf("nobody could open layer %s any more", d)
		}
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
	r.wrapped[l.Digest] = nil
	if len(r.o.Recipients) == 0 {
		return nil
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

// before returns the packets of now that the place of the new ones begins with.
func (r *rekeying) before() keyset.Set {
	if r.place() == KeysBeside {
		return r.beside.Keys
	}
	all := keyset.Set{}
	for d := range r.wrapped {
		all[d] = slices.Concat(r.inManifest[d], r.beside.Keys[d])
	}
	return all
}

// with adds the new packets to those that stay. A key ID means one key, so an
// old packet for the same one goes.
func (r *rekeying) with(old keyset.Set) keyset.Set {
	all := maps.Clone(r.wrapped)
	if r.o.Replace {
		return all
	}
	for d := range all {
		stays := slices.DeleteFunc(slices.Clone(old[d]), func(w crypt.WrappedKey) bool {
			return r.goes(w) || sameKID(w, r.wrapped[d])
		})
		all[d] = slices.Concat(stays, r.wrapped[d])
	}
	return all
}

func (r *rekeying) goes(w crypt.WrappedKey) bool {
	name, err := w.Reader()
	if err != nil || !slices.Contains(r.o.Remove, name) {
		return false
	}
	r.removed[name] = true
	return true
}

func sameKID(w crypt.WrappedKey, keys []crypt.WrappedKey) bool {
	name, err := w.Reader()
	return err == nil && w.Scheme.IsProvider() && slices.ContainsFunc(keys, func(k crypt.WrappedKey) bool {
		other, err := k.Reader()
		return err == nil && k.Scheme.IsProvider() && other == name
	})
}

// leavesOut reports whether somebody was to lose what he had.
func (r *rekeying) leavesOut() bool { return r.o.Replace || len(r.o.Remove) > 0 }

// toSet stores a new key set, which has all that shall be there.
func (r *rekeying) toSet(ctx context.Context) error {
	m, err := keyset.Push(ctx, r.at.store, r.image.Manifest.Descriptor(), r.with(r.before()))
	if err != nil {
		return err
	}
	r.finish(r.image.Manifest, KeysBeside)
	r.added, r.done.KeySet = m.Digest, m.Digest.String()
	return nil
}

// takeAway removes the key sets of before, and notes what stays.
func (r *rekeying) takeAway(ctx context.Context) error {
	if r.added == "" {
		if r.leavesOut() {
			r.left = append(r.left, "the manifest of before, "+r.done.Before)
		}
		return nil
	}
	for _, old := range r.beside.Manifests {
		if old == r.added {
			continue
		}
		if gone, err := registry.Detach(ctx, r.at.store, r.image.Manifest.Digest, old); err != nil {
			return err
		} else if !gone && r.leavesOut() {
			r.left = append(r.left, "the key set "+old.String()+", which the registry does not delete")
		}
	}
	if r.o.Replace && len(r.inManifest) > 0 || r.manifestHas(r.o.Remove) {
		r.left = append(r.left, "the manifest itself, which has keys in its annotations")
	}
	return nil
}

// manifestHas reports whether the manifest has packets for one of the readers.
func (r *rekeying) manifestHas(readers []string) bool {
	for _, keys := range r.inManifest {
		if slices.ContainsFunc(keys, func(w crypt.WrappedKey) bool {
			name, err := w.Reader()
			return err == nil && slices.Contains(readers, name)
		}) {
			return true
		}
	}
	return false
}

// toManifest writes the manifest again with other annotations, under its digest.
func (r *rekeying) toManifest(ctx context.Context) error {
	keys := r.with(r.before())
	doc := *r.image.Image
	doc.Layers = slices.Clone(doc.Layers)
	for i, l := range doc.Layers {
		if keys[l.Digest] == nil {
			continue
		}
		added, err := crypt.KeyAnnotations(keys[l.Digest]...)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		a := crypt.WithoutKeys(l.Annotations)
		maps.Copy(a, added)
		doc.Layers[i].Annotations = a
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	m, err := r.at.sink.PushManifest(ctx, "", r.image.Manifest.MediaType, raw)
	if err != nil {
		return err
	}
	r.finish(m, KeysInManifest)
	return nil
}

func (r *rekeying) finish(m registry.Manifest, place KeyPlace) {
	encrypted := 0
	for _, l := range r.image.Image.Layers {
		if _, ok := r.wrapped[l.Digest]; ok {
			encrypted++
		}
	}
	r.now = m
	r.done = RekeyedImage{
		Platform: r.image.platform, Digest: m.Digest.String(), Before: r.image.Manifest.Digest.String(), Keys: place, Layers: encrypted,
	}
}
