package ship

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// sealed is a layer that was encrypted and stored.
type sealed struct {
	desc  ocispec.Descriptor // digest, size and media type
	added map[string]string  // annotations that it gets beside those of the plain one
	keys  []crypt.WrappedKey
}

type encryption struct {
	o      EncryptOptions
	from   registry.Source
	to     registry.Sink
	layers int
	all    int64 // bytes of the layers

	mu     sync.Mutex
	sealed map[digest.Digest]sealed // by the plain blob's digest
}

// sealAll encrypts the layers, each once however often it occurs.
func (e *encryption) sealAll(ctx context.Context, layers []plainLayer) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(e.o.Parallel)
	for i, l := range layers {
		group.Go(func() error {
			done, err := e.seal(ctx, i, l)
			if err != nil {
				return fmt.Errorf("encrypt layer %s: %w", l.Digest, err)
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.sealed[l.Digest] = done
			return nil
		})
	}
	return group.Wait()
}

// seal streams one layer through the cipher. The source reader fails at its
// end unless the plain blob is the one that the manifest names, and then
// nothing is stored.
func (e *encryption) seal(ctx context.Context, n int, l plainLayer) (sealed, error) {
	rc, err := e.from.Blob(ctx, l.Descriptor)
	if err != nil {
		return sealed{}, err
	}
	defer func() { _ = rc.Close() }()
	at := Event{Phase: PhaseEncrypting, Layer: n, Layers: e.layers, Digest: l.Digest, Total: l.Size, All: e.all}
	enc, err := crypt.NewEncrypter(e.o.meter(rc, at))
	if err != nil {
		return sealed{}, err
	}
	out, err := e.to.PushBlob(ctx, enc)
	if err != nil {
		return sealed{}, err
	}
	pub, priv, err := enc.Options(l.Digest)
	if err != nil {
		return sealed{}, err
	}
	defer priv.Key.Destroy()
	doc, err := priv.Marshal()
	if err != nil {
		return sealed{}, err
	}
	defer doc.Destroy()
	keys, err := crypt.WrapFor(doc, e.o.Recipients...)
	if err != nil {
		return sealed{}, err
	}
	added, err := crypt.Annotations(pub, keys...)
	if err != nil {
		return sealed{}, err
	}
	if e.o.Keys == KeysBeside {
		added = crypt.WithoutKeys(added)
	}
	out.MediaType = l.encrypted
	at.Phase, at.Digest, at.Bytes, at.Total = PhaseEncrypted, out.Digest, out.Size, out.Size
	e.o.tell(at)
	return sealed{desc: out, added: added, keys: keys}, nil
}

// manifest returns the manifest with the sealed layers, and their keys.
func (e *encryption) manifest(plain *ocispec.Manifest, config ocispec.Descriptor) ([]byte, keyset.Set, error) {
	out := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: plain.Annotations, Config: config,
	}
	keys := keyset.Set{}
	for _, l := range plain.Layers {
		s := e.sealed[l.Digest]
		desc := s.desc
		desc.Annotations = crypt.WithoutKeys(l.Annotations) // a plain layer has none that could be right
		if desc.Annotations == nil {
			desc.Annotations = map[string]string{}
		}
		maps.Copy(desc.Annotations, s.added)
		out.Layers = append(out.Layers, desc)
		keys[desc.Digest] = s.keys
	}
	raw, err := json.Marshal(out)
	return raw, keys, err
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

// meter tells of the bytes that pass.
func (o *EncryptOptions) meter(r io.Reader, at Event) io.Reader {
	if o.Progress == nil {
		return r
	}
	o.Progress(at)
	return &meter{r: r, at: at, tell: o.Progress}
}

func (o *EncryptOptions) tell(e Event) {
	if o.Progress != nil {
		o.Progress(e)
	}
}
