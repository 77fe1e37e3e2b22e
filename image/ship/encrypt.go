package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
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
	Platform registry.Platform // of a multi-platform source; zero: linux on this architecture
	Progress io.Writer         // one line per layer; nil: silent
}

// Result describes an image that was written.
type Result struct {
	Reference string `json:"reference"` // by digest where the destination is a registry
	Digest    string `json:"digest"`    // of the manifest
	Layers    int    `json:"layers"`
}

// Encrypt copies one platform's image from src to dst (registry references or
// oci:DIR[:tag]) and encrypts every layer under a key of its own, which it
// wraps with the KEK. The config, and with it the diffIDs, stays as it is. The
// layers stream: neither memory nor disk holds one. The result is always an
// OCI manifest; a Docker manifest is converted, for Docker has no encrypted
// layers.
func Encrypt(ctx context.Context, src, dst string, o EncryptOptions) (Result, error) {
	client, err := registry.NewClient(o.Registry)
	if err != nil {
		return Result{}, err
	}
	if err := o.addBroker(); err != nil {
		return Result{}, err
	}
	from, err := openPlace(client, src, false)
	if err != nil {
		return Result{}, err
	}
	if o.Platform == (registry.Platform{}) {
		o.Platform = registry.Native()
	}
	resolved, err := registry.Resolve(ctx, from.source, from.version, o.Platform)
	if err != nil {
		return Result{}, err
	}
	to, err := openPlace(client, dst, true)
	if err != nil {
		return Result{}, err
	}
	e := &encryption{o: o, from: from.source, to: to.sink, done: map[digest.Digest]ocispec.Descriptor{}, beside: keyset.Set{}}
	raw, err := e.image(ctx, resolved)
	if err != nil {
		return Result{}, err
	}
	m, err := to.sink.PushManifest(ctx, to.tag, ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		return Result{}, err
	}
	if o.Keys == KeysBeside {
		if _, err := keyset.Push(ctx, to, m.Descriptor(), e.beside); err != nil {
			return Result{}, err
		}
	}
	return Result{Reference: to.show(m.Digest.String()), Digest: m.Digest.String(), Layers: len(resolved.Image.Layers)}, nil
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

type encryption struct {
	o    EncryptOptions
	from registry.Source
	to   registry.Sink
	done map[digest.Digest]ocispec.Descriptor // a layer that occurs twice is encrypted once

	beside keyset.Set // filled if the keys travel there
}

// image writes config and layers and returns the new manifest.
func (e *encryption) image(ctx context.Context, r *registry.Resolved) ([]byte, error) {
	out := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: r.Image.Annotations}
	types := make([]string, len(r.Image.Layers))
	for i, l := range r.Image.Layers { // refuse before the first byte is written
		var err error
		if types[i], err = encryptedType(l.MediaType); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	config, err := e.config(ctx, r.Image.Config)
	if err != nil {
		return nil, err
	}
	out.Config = config
	for i, l := range r.Image.Layers {
		desc, ok := e.done[l.Digest]
		if !ok {
			if desc, err = e.layer(ctx, l, types[i]); err != nil {
				return nil, fmt.Errorf("encrypt layer %d: %w", i, err)
			}
			e.done[l.Digest] = desc
		}
		out.Layers = append(out.Layers, desc)
		if e.o.Progress != nil {
			_, _ = fmt.Fprintf(e.o.Progress, "layer %d/%d encrypted: %s (%d bytes)\n", i+1, len(types), desc.Digest, desc.Size)
		}
	}
	return json.Marshal(out)
}

func (e *encryption) config(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	rc, err := e.from.Blob(ctx, desc)
	if err != nil {
		return desc, err
	}
	defer func() { _ = rc.Close() }()
	written, err := e.to.PushBlob(ctx, rc)
	if err != nil {
		return desc, err
	}
	written.MediaType = ocispec.MediaTypeImageConfig
	return written, nil
}

// layer streams one layer through the cipher. The source reader fails at its
// end unless the plain blob is the one that the manifest names, and then
// nothing is stored.
func (e *encryption) layer(ctx context.Context, desc ocispec.Descriptor, mediaType string) (ocispec.Descriptor, error) {
	rc, err := e.from.Blob(ctx, desc)
	if err != nil {
		return desc, err
	}
	defer func() { _ = rc.Close() }()
	enc, err := crypt.NewEncrypter(rc)
	if err != nil {
		return desc, err
	}
	out, err := e.to.PushBlob(ctx, enc)
	if err != nil {
		return desc, err
	}
	pub, priv, err := enc.Options(desc.Digest)
	if err != nil {
		return desc, err
	}
	defer priv.Key.Destroy()
	doc, err := priv.Marshal()
	if err != nil {
		return desc, err
	}
	defer doc.Destroy()
	keys, err := crypt.WrapFor(doc, e.o.Recipients...)
	if err != nil {
		return desc, err
	}
	added, err := e.annotations(out.Digest, pub, keys)
	if err != nil {
		return desc, err
	}
	out.MediaType = mediaType
	out.Annotations = maps.Clone(desc.Annotations)
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	maps.Copy(out.Annotations, added)
	return out, nil
}

// annotations says what the layer's descriptor gets: everything, or all but the
// keys if they travel beside the image.
func (e *encryption) annotations(d digest.Digest, pub crypt.Public, keys []crypt.WrappedKey) (map[string]string, error) {
	all, err := crypt.Annotations(pub, keys...)
	if err != nil || e.o.Keys != KeysBeside {
		return all, err
	}
	e.beside[d] = keys
	return crypt.WithoutKeys(all), nil
}

// encryptedType maps a layer's media type to its encrypted form.
func encryptedType(t string) (string, error) {
	if strings.HasSuffix(t, crypt.MediaSuffix) {
		return "", errors.New("the layer is encrypted already")
	}
	const docker = "application/vnd.docker.image.rootfs.diff.tar"
	plain := map[string]string{docker: ocispec.MediaTypeImageLayer, docker + ".gzip": ocispec.MediaTypeImageLayerGzip, docker + ".zstd": ocispec.MediaTypeImageLayerZstd}
	if oci, ok := plain[t]; ok {
		t = oci
	}
	switch t {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd:
		return t + crypt.MediaSuffix, nil
	}
	return "", fmt.Errorf("layers of media type %.100q are not supported", t)
}
