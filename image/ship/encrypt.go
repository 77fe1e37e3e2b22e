package ship

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// EncryptOptions say who shall be able to open an image: the guests that get the
// KEK from the broker, the recipients, or both.
type EncryptOptions struct {
	KID        string       // resource URI of the key, for example kbs:///default/image-kek/1; empty: none
	KEK        secret.Bytes // the key itself, 32 bytes
	Recipients []crypt.Recipient
	// Keys says where the wrapped keys travel: in the manifest, unless KeysBeside.
	// Beside it, recipients can come and go without another digest, and readers
	// other than this project's do not find them.
	Keys     KeyPlace
	Registry registry.Config
	Platform registry.Platform // of a multi-platform source; zero: all of them
	Parallel int               // layers at a time; 0: 3
	// Check reads back what was written and decrypts it with the KEK. Without a
	// KID there is nothing to decrypt with, and nothing is checked.
	Check bool
	// Before is called when all is written and checked, and nothing has the tag yet:
	// for what must be done before anybody finds the image, for example its signature.
	// If it fails, the tag stays where it is. nil: nothing.
	Before   func(ctx context.Context, written Result) error
	Progress func(Event) // called from several goroutines; nil: silent
}

// Result describes an image that was written.
type Result struct {
	Reference string    `json:"reference"` // by digest where the destination is a registry
	Digest    string    `json:"digest"`    // of what the name points to: the manifest, or the index of several platforms
	Layers    int       `json:"layers"`    // different ones
	Written   []Written `json:"manifests"` // one for each platform
	Checked   bool      `json:"checked"`   // every layer was read back and decrypted to what it was
}

// Written is the image of one platform.
type Written struct {
	Digest   string `json:"digest"`
	Platform string `json:"platform,omitempty"` // as the index says it
}

// Digests returns those of the manifests that guests run, and name when they
// ask for the key.
func (r Result) Digests() (all []string) {
	for _, w := range r.Written {
		all = append(all, w.Digest)
	}
	return all
}

const defaultParallel = 3 // layers at a time

// Encrypt copies an image from src to dst (registry references or
// oci:DIR[:tag]) and encrypts every layer under a key of its own, which it
// wraps for the recipients. The configs, and with them the diffIDs, stay as
// they are. The layers stream, several at a time: neither memory nor disk holds
// one. The result is always of OCI media types; Docker manifests are converted,
// for Docker has no encrypted layers. Of an index every image is taken;
// attestations about the manifests of before are left behind.
func Encrypt(ctx context.Context, src, dst string, o EncryptOptions) (Result, error) {
	client, err := registry.NewClient(o.Registry)
	if err != nil {
		return Result{}, err
	}
	if err := o.addBroker(); err != nil {
		return Result{}, err
	}
	from, err := openPlace(client, src, toRead)
	if err != nil {
		return Result{}, err
	}
	s, err := readShipment(ctx, from, o.Platform)
	if err != nil {
		return Result{}, err
	}
	layers, err := s.layers() // refuses before the first byte is written
	if err != nil {
		return Result{}, err
	}
	to, err := openPlace(client, dst, toCreate)
	if err != nil {
		return Result{}, err
	}
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	e := &encryption{o: o, from: from.source, to: to.sink, sealed: map[digest.Digest]sealed{}, layers: len(layers)}
	for _, l := range layers {
		e.all += l.Size // encryption changes no size
	}
	if err := e.sealAll(ctx, layers); err != nil {
		return Result{}, err
	}
	return e.write(ctx, s, to)
}

// addBroker makes the KEK the first of the recipients.
func (o *EncryptOptions) addBroker() error {
	if o.KID == "" {
		if len(o.Recipients) == 0 {
			return errors.New("nobody shall be able to open the image: a key or a recipient is needed")
		}
		return nil
	}
	broker, err := crypt.BrokerRecipient(o.KID, o.KEK)
	if err != nil {
		return err
	}
	o.Recipients = append([]crypt.Recipient{broker}, o.Recipients...)
	return nil
}

// write stores the manifests, then the index above them, if there is one. The
// tag comes last: nobody sees half an image, nor one that cannot be opened.
func (e *encryption) write(ctx context.Context, s *shipment, to *place) (Result, error) {
	done, root, err := e.manifests(ctx, s, to)
	if err != nil {
		return Result{}, err
	}
	done.Digest, done.Layers, done.Reference = root.Digest.String(), e.layers, to.show(root.Digest.String())
	if e.o.Check && e.o.KID != "" {
		if err := e.check(ctx, to, done.Written); err != nil {
			return done, err
		}
		done.Checked = true
	}
	if e.o.Before != nil {
		if err := e.o.Before(ctx, done); err != nil {
			return done, err
		}
	}
	return done, to.name(ctx, root)
}

// manifests writes them under their digests, and returns the one above all.
func (e *encryption) manifests(ctx context.Context, s *shipment, to *place) (done Result, root registry.Manifest, err error) {
	for i, image := range s.images {
		if root, err = e.image(ctx, image, to); err != nil {
			return done, root, err
		}
		w := Written{Digest: root.Digest.String()}
		if s.index != nil {
			entry, now := &s.index.Manifests[i], root.Descriptor()
			entry.MediaType, entry.Digest, entry.Size = now.MediaType, now.Digest, now.Size
			entry.Data, entry.URLs = nil, nil // are those of the plain manifest
			w.Platform = platformText(entry.Platform)
		}
		done.Written = append(done.Written, w)
	}
	if s.index != nil {
		root, err = pushIndex(ctx, to, s.index)
	}
	return done, root, err
}

// image writes a config and the manifest of one platform.
func (e *encryption) image(ctx context.Context, r *registry.Resolved, to *place) (registry.Manifest, error) {
	config, err := e.config(ctx, r.Image.Config)
	if err != nil {
		return registry.Manifest{}, err
	}
	raw, keys, err := e.manifest(r.Image, config)
	if err != nil {
		return registry.Manifest{}, err
	}
	m, err := to.sink.PushManifest(ctx, "", ocispec.MediaTypeImageManifest, raw)
	if err != nil || e.o.Keys != KeysBeside {
		return m, err
	}
	_, err = keyset.Push(ctx, to.store, m.Descriptor(), keys)
	return m, err
}
