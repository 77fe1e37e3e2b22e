package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

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
	Unwrapper  crypt.KeyUnwrapper // opens what the image has now; nil: nobody comes, some only go
	Replace    bool               // the recipients of before are left out
	// Remove leaves out the packets of these readers alone: key IDs, or a scheme
	// (jwe, pkcs7, pkcs11), whose packets name nobody.
	Remove   []string
	Keys     KeyPlace
	Registry registry.Config
	Platform registry.Platform // of a multi-platform image; zero: all of them
}

// RekeyResult tells what happened.
type RekeyResult struct {
	Reference string         `json:"reference"` // by digest where the destination is a registry
	Digest    string         `json:"digest"`    // of what the name points to, now: the manifest, or the index of several platforms
	Before    string         `json:"before"`    // the same, before; another one: it has to be signed again
	Images    []RekeyedImage `json:"images"`    // one for each platform
	// Left says where keys for readers of before may still be found, although they
	// were to be left out. Whoever had a key may have kept it in any case.
	Left []string `json:"left,omitempty"`
}

// RekeyedImage is the image of one platform.
type RekeyedImage struct {
	Platform string   `json:"platform,omitempty"` // as the index says it
	Digest   string   `json:"digest"`             // of the manifest, now
	Before   string   `json:"before"`             // of the manifest, before
	Keys     KeyPlace `json:"keys"`
	KeySet   string   `json:"keySet,omitempty"` // digest of the referrer
	Layers   int      `json:"layers"`           // that are encrypted
}

// Digests returns those of the manifests that guests run, and name when they
// ask for the key.
func (r RekeyResult) Digests() (all []string) {
	for _, i := range r.Images {
		all = append(all, i.Digest)
	}
	return all
}

// Rekey wraps the keys of an encrypted image for other recipients, for every
// platform of an index. The layers stay as they are, and none is downloaded. All
// keys are wrapped before anything is written. Where manifests of an index
// change, so does the index; attestations about those of before are left behind.
func Rekey(ctx context.Context, ref string, o RekeyOptions) (RekeyResult, error) {
	if err := o.check(); err != nil {
		return RekeyResult{}, err
	}
	client, err := registry.NewClient(o.Registry)
	if err != nil {
		return RekeyResult{}, err
	}
	at, err := openPlace(client, ref, toChange)
	if err != nil {
		return RekeyResult{}, err
	}
	root, err := at.source.Manifest(ctx, at.version)
	if err != nil {
		return RekeyResult{}, err
	}
	images, err := imagesOf(ctx, at, o.Platform)
	if err != nil {
		return RekeyResult{}, err
	}
	var all []*rekeying
	changes := false
	for _, image := range images {
		r, err := readRekeying(ctx, at, image, o)
		if err != nil {
			return RekeyResult{}, err
		}
		named := crypt.Image{Digest: image.Manifest.Digest.String(), Reference: ref}
		if err := r.wrap(crypt.WithImage(ctx, named)); err != nil {
			return RekeyResult{}, r.blame(err)
		}
		all = append(all, r)
		changes = changes || r.place() == KeysInManifest
	}
	if changes && at.tag == "" {
		return RekeyResult{}, errors.New("the image is named by its digest, which would change: name its tag, or keep its keys beside it")
	}
	return writeRekeyed(ctx, at, root, all)
}

func (o *RekeyOptions) check() error {
	switch {
	case len(o.Recipients) == 0 && len(o.Remove) == 0:
		return errors.New("rekey needs recipients, or some who go")
	case len(o.Recipients) > 0 && o.Unwrapper == nil:
		return errors.New("recipients need what opens the keys of now")
	case len(o.Recipients) == 0 && o.Replace:
		return errors.New("nobody could open the image any more: replacing needs recipients")
	}
	return nil
}

// imagesOf returns the images of an index, or the one of a platform.
func imagesOf(ctx context.Context, at *place, p registry.Platform) ([]platformImage, error) {
	s, err := readShipment(ctx, at, p)
	if err != nil {
		return nil, err
	}
	var all []platformImage
	for i, r := range s.images {
		image := platformImage{Resolved: r}
		if s.index != nil {
			image.platform = platformText(s.index.Manifests[i].Platform)
		}
		all = append(all, image)
	}
	return all, nil
}

// platformImage is an image, and the platform by which an index names it.
type platformImage struct {
	*registry.Resolved

	platform string
}

func readRekeying(ctx context.Context, at *place, image platformImage, o RekeyOptions) (*rekeying, error) {
	beside, err := keyset.Fetch(ctx, at.source, image.Manifest.Digest)
	if err != nil {
		return nil, err
	}
	return &rekeying{
		o: o, at: at, image: image, beside: beside, wrapped: keyset.Set{}, inManifest: keyset.Set{}, removed: map[string]bool{},
	}, nil
}

// writeRekeyed writes the new keys of every image, then what the name points to, and
// takes away what was before last: at no moment is there an image that neither the
// old keys open nor the new ones.
func writeRekeyed(ctx context.Context, at *place, root registry.Manifest, all []*rekeying) (RekeyResult, error) {
	done := RekeyResult{Before: root.Digest.String(), Digest: root.Digest.String()}
	for _, r := range all {
		write := r.toManifest
		if r.place() == KeysBeside {
			write = r.toSet
		}
		if err := write(ctx); err != nil {
			takeBack(ctx, all)
			return done, r.blame(err)
		}
		done.Images = append(done.Images, r.done)
	}
	top, err := topOf(ctx, at, root, all)
	if err == nil && top.Digest != root.Digest {
		done.Digest = top.Digest.String()
		err = at.name(ctx, top)
	}
	if err != nil {
		if !errors.Is(err, ErrHalfDone) {
			takeBack(ctx, all)
		}
		return done, err
	}
	done.Reference = at.show(done.Digest)
	for _, r := range all {
		if err := r.takeAway(ctx); err != nil {
			return done, halfDone{r.blame(fmt.Errorf("the new keys are in place, those of before are too: %w", err))}
		}
		done.Left = append(done.Left, r.left...)
	}
	return done, nil
}

// topOf returns what the name shall point to: root itself if nothing below it changed.
func topOf(ctx context.Context, at *place, root registry.Manifest, all []*rekeying) (registry.Manifest, error) {
	if !root.IsIndex() {
		return all[0].now, nil
	}
	now := map[string]ocispec.Descriptor{} // manifests that changed, by their digest of before
	for _, r := range all {
		if r.done.Digest != r.done.Before {
			now[r.done.Before] = r.now.Descriptor()
		}
	}
	if len(now) == 0 {
		return root, nil
	}
	return rewriteIndex(ctx, at, root, now)
}

const patience = 10 * time.Second // with a registry, to clear up after a failure

// takeBack removes new key sets where not all could be written: they are of no use, for
// the new key will not be kept. That it fails does no harm.
func takeBack(ctx context.Context, all []*rekeying) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for _, r := range all {
		if r.added != "" && !slices.Contains(r.beside.Manifests, r.added) {
			_, _ = registry.Detach(ctx, r.at.store, r.image.Manifest.Digest, r.added)
		}
	}
}

// rewriteIndex puts changed manifests into the index. What speaks about those
// of before is left out.
func rewriteIndex(ctx context.Context, at *place, root registry.Manifest, now map[string]ocispec.Descriptor) (registry.Manifest, error) {
	index, err := root.Index()
	if err != nil {
		return registry.Manifest{}, err
	}
	doc := *index
	doc.Manifests = nil
	for _, d := range index.Manifests {
		if _, stale := now[d.Annotations[attestationSubject]]; stale && d.Annotations[attestationMark] != "" {
			continue
		}
		if to, changed := now[d.Digest.String()]; changed {
			d.MediaType, d.Digest, d.Size = to.MediaType, to.Digest, to.Size
			d.Data, d.URLs = nil, nil // are those of before
		}
		doc.Manifests = append(doc.Manifests, d)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return registry.Manifest{}, err
	}
	m, err := at.sink.PushManifest(ctx, "", root.MediaType, raw)
	if err != nil {
		return m, fmt.Errorf("the index: %w", err)
	}
	return m, nil
}
