package ship

import (
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// place is where an image is read from or written to.
type place struct {
	store   registry.Store // not embedded: a registry can do more than a Store, and is asked for it
	source  registry.Source
	sink    registry.Sink
	version string // tag or digest to read
	tag     string // to write; empty if the name has only a digest
	show    func(digest string) string
	ref     registry.Reference // zero for a layout
}

// A purpose is what a place is opened for.
type purpose int

const (
	toRead   purpose = iota
	toChange         // what is there is read, and written again or signed
	toCreate         // under a tag
)

// openPlace understands "oci:DIR[:tag]" and registry references.
func openPlace(c *registry.Client, name string, why purpose) (*place, error) {
	if dir, tag, ok := registry.ParseLayout(name); ok {
		open := registry.OpenLayout
		if why == toCreate {
			open = registry.CreateLayout
		}
		l, err := open(dir)
		if err != nil {
			return nil, err
		}
		return &place{store: l, source: l, sink: l, version: tag, tag: tag, show: func(string) string { return "oci:" + dir + ":" + tag }}, nil
	}
	ref, err := registry.ParseReference(name)
	if err != nil {
		return nil, err
	}
	repo, err := c.Repository(ref)
	if err != nil {
		return nil, err
	}
	if why != toRead {
		repo = repo.Home()
	}
	if why == toCreate && ref.Digest != "" {
		return nil, fmt.Errorf("%s: a destination needs a tag, its digest is not known yet", name)
	}
	return &place{store: repo, source: repo, sink: repo, version: ref.Version(), tag: ref.Tag, ref: ref,
		show: func(d string) string { return ref.Name() + "@" + d }}, nil
}

// name points the tag at a manifest that is stored already.
func (p *place) name(ctx context.Context, m registry.Manifest) error {
	if _, err := p.sink.PushManifest(ctx, p.tag, m.MediaType, m.Raw); err != nil {
		return halfDone{fmt.Errorf("whether %s is at the new image now is not known: %w", p.tag, err)}
	}
	return nil
}

// ErrHalfDone is what errors are after which a name may lead to what only the new keys
// open, although not all was done: those keys must not be thrown away.
var ErrHalfDone = errors.New("half done")

type halfDone struct{ error }

func (h halfDone) Unwrap() error        { return h.error }
func (h halfDone) Is(target error) bool { return target == ErrHalfDone }

var errNoRegistry = errors.New("signatures are kept in registries; an OCI layout has no name to sign for")
