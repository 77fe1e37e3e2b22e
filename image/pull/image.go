package pull

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// An Image is a pulled image. It holds its layers until it is released.
type Image struct {
	Reference string // normalised, as it was judged
	Digest    string // of the platform's manifest
	Root      string // digest that the reference pointed to; an index, or Digest
	Config    ocispec.ImageConfig
	Verdict   trust.Verdict

	store  *store.Store
	layers []*store.Layer // lowest first

	mu       sync.Mutex
	released bool
	mounts   map[string]*store.Mount // by absolute target
}

// Mount mounts the image, writable, at target. Every mount has a writable
// layer of its own. Errors are a [*fault.Fault].
func (i *Image) Mount(ctx context.Context, target string) error {
	return i.mount(ctx, target, i.store.Mount)
}

// MountReadOnly mounts the image at target so that nothing can be written. The
// root of a container is no such mount, also where the pod asks for a read-only
// one: the runtime must be able to make mount points, and then closes it itself.
func (i *Image) MountReadOnly(ctx context.Context, target string) error {
	return i.mount(ctx, target, i.store.MountReadOnly)
}

func (i *Image) mount(ctx context.Context, target string, by func([]*store.Layer, string) (*store.Mount, error)) error {
	if err := ctx.Err(); err != nil {
		return fault.New(fault.Internal, err)
	}
	abs, err := filepath.Abs(target)
	if err != nil {
		return fault.New(fault.Internal, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.released {
		return fault.Newf(fault.Internal, "mount %s: the image was released", i.Reference)
	}
	if i.mounts[abs] != nil {
		return fault.Newf(fault.Conflict, "the image is mounted at %s already", abs)
	}
	m, err := by(i.layers, abs)
	if err != nil {
		return fault.New(fault.Internal, err)
	}
	if i.mounts == nil {
		i.mounts = map[string]*store.Mount{}
	}
	i.mounts[abs] = m
	return nil
}

// Unmount unmounts what Mount mounted at target, and removes what was written
// there. While the mount is in use it fails and changes nothing.
func (i *Image) Unmount(target string) error {
	abs, err := filepath.Abs(target)
	if err != nil {
		return fault.New(fault.Internal, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.mounts[abs]
	if m == nil {
		return fault.Newf(fault.NotFound, "the image is not mounted at %s", abs)
	}
	if err := m.Unmount(); err != nil {
		return fault.New(fault.Internal, err)
	}
	delete(i.mounts, abs)
	return nil
}

// MoveTo makes of the image one directory at target, which is absent or empty
// and on the file system of the store. The image is released by it: its layers
// leave the store, which nobody else may be using. Errors are a [*fault.Fault],
// and then nothing is at target.
func (i *Image) MoveTo(ctx context.Context, target string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.released || len(i.mounts) > 0 {
		return fault.Newf(fault.Internal, "move %s: the image is mounted, or was released", i.Reference)
	}
	if err := i.store.Flatten(ctx, i.layers, target); err != nil {
		return fault.New(fault.Internal, err)
	}
	i.released, i.layers = true, nil
	return nil
}

// Release unmounts what is still mounted and gives the layers up. They stay in
// the store for the next pull until its GC. On an error the image stays held.
func (i *Image) Release() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var errs []error
	for target, m := range i.mounts {
		if err := m.Unmount(); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(i.mounts, target)
	}
	if len(errs) > 0 {
		return fault.New(fault.Internal, errors.Join(errs...))
	}
	for _, l := range i.layers {
		l.Release()
	}
	i.released, i.layers = true, nil
	return nil
}
