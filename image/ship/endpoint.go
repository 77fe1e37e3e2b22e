package ship

import (
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// place is where an image is read from or written to.
type place struct {
	registry.Store
	source  registry.Source
	sink    registry.Sink
	version string // tag or digest to read
	tag     string // to write; empty if the name has only a digest
	show    func(digest string) string
	ref     registry.Reference // zero for a layout
}

// openPlace understands "oci:DIR[:tag]" and registry references.
func openPlace(c *registry.Client, name string, create bool) (*place, error) {
	if dir, tag, ok := registry.ParseLayout(name); ok {
		open := registry.OpenLayout
		if create {
			open = registry.CreateLayout
		}
		l, err := open(dir)
		if err != nil {
			return nil, err
		}
		return &place{Store: l, source: l, sink: l, version: tag, tag: tag, show: func(string) string { return "oci:" + dir + ":" + tag }}, nil
	}
	ref, err := registry.ParseReference(name)
	if err != nil {
		return nil, err
	}
	repo, err := c.Repository(ref)
	if err != nil {
		return nil, err
	}
	if create && ref.Digest != "" {
		return nil, fmt.Errorf("%s: a destination needs a tag, its digest is not known yet", name)
	}
	return &place{Store: repo, source: repo, sink: repo, version: ref.Version(), tag: ref.Tag, ref: ref,
		show: func(d string) string { return ref.Name() + "@" + d }}, nil
}

var errNoRegistry = errors.New("signatures are kept in registries; an OCI layout has no name to sign for")
