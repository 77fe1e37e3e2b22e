package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
)

// PullImage fetches ref, judges it by the image policy in force, decrypts and
// verifies its layers and mounts them at bundle/rootfs, writable. bundle is an
// absolute path; it takes one image until [Hub.ReleaseImage]. Errors are
// *fault.Fault with a ticket, and then nothing is left mounted.
func (h *Hub) PullImage(ctx context.Context, ref, bundle string) (PulledImage, error) {
	img, err := h.pullImage(ctx, ref, bundle)
	if err != nil {
		return PulledImage{}, h.refuser.Refuse(ctx, ObjectImage, ref, err)
	}
	return img, nil
}

func (h *Hub) pullImage(ctx context.Context, ref, bundle string) (PulledImage, error) {
	if !filepath.IsAbs(bundle) || filepath.Clean(bundle) != bundle {
		return PulledImage{}, fault.Newf(fault.InvalidRequest, "bundle %q is not a clean absolute path", bundle)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	place, err := h.bundles.reserve(bundle, cancel)
	if err != nil {
		return PulledImage{}, err
	}
	m, err := h.pullAndMount(ctx, ref, filepath.Join(bundle, "rootfs"))
	if err == nil {
		if err = h.recordPull(ctx, ref, m.image.Verdict); err != nil {
			err = errors.Join(err, m.release())
		}
	}
	if err != nil {
		h.bundles.abandon(place)
		return PulledImage{}, err
	}
	h.bundles.fill(place, m)
	level := slog.LevelInfo
	if m.image.Verdict.Waived {
		level = slog.LevelWarn // the policy let it pass without any signature
	}
	h.log.LogAttrs(ctx, level, "image mounted",
		slog.String("digest", m.image.Digest), slog.Bool("signature_waived", m.image.Verdict.Waived))
	return PulledImage{Digest: m.image.Digest, Rootfs: m.target, Keys: m.keys}, nil
}

func (h *Hub) pullAndMount(ctx context.Context, ref, target string) (mounted, error) {
	keys := newPullKeys(h.fetch, h.pairs)
	defer keys.destroy()
	image, err := h.images.Load().puller.Pull(withKeys(ctx, keys), ref)
	if err != nil {
		return mounted{}, err
	}
	if err = os.MkdirAll(target, 0o755); err == nil {
		err = image.Mount(ctx, target)
	}
	if err != nil {
		return mounted{}, errors.Join(fmt.Errorf("mount image: %w", err), image.Release())
	}
	return mounted{image: image, target: target, keys: keys.used()}, nil
}

// ReleaseImage unmounts the image of a bundle and gives its layers back. It does
// nothing for a bundle without an image. After an error it may be called again.
func (h *Hub) ReleaseImage(ctx context.Context, bundle string) error {
	m, ok, err := h.bundles.take(bundle)
	if err != nil {
		return h.refuser.Refuse(ctx, ObjectImage, bundle, err)
	}
	if !ok {
		return nil
	}
	if err := m.release(); err != nil {
		h.bundles.putBack(bundle, m)
		return h.refuser.Refuse(ctx, ObjectImage, bundle, err)
	}
	return nil
}

// mounted is an image at its place.
type mounted struct {
	image  *pull.Image
	target string
	keys   []string // see [PulledImage]
}

func (m mounted) release() error {
	if err := m.image.Unmount(m.target); err != nil {
		return fmt.Errorf("unmount image: %w", err)
	}
	return m.image.Release()
}

// bundles remembers which bundle holds which image. Its lock is held only to
// look at the map, never during a pull.
type bundles struct {
	mu      sync.Mutex
	slots   map[string]*slot
	pulling sync.WaitGroup
	closed  bool
}

// slot is a bundle's place: being pulled while cancel is set, mounted after.
type slot struct {
	bundle string
	cancel context.CancelFunc
	mounted
}

func (b *bundles) reserve(bundle string, cancel context.CancelFunc) (*slot, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fault.New(fault.Unavailable, errors.New("the hub is closed"))
	}
	if _, taken := b.slots[bundle]; taken {
		return nil, fault.Newf(fault.Conflict, "bundle %q already has an image", bundle)
	}
	if b.slots == nil {
		b.slots = map[string]*slot{}
	}
	s := &slot{bundle: bundle, cancel: cancel}
	b.slots[bundle] = s
	b.pulling.Add(1)
	return s, nil
}

// whileEmpty does something while no bundle has an image, nor gets one.
func (b *bundles) whileEmpty(do func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.slots) > 0 {
		return false
	}
	do()
	return true
}

func (b *bundles) abandon(s *slot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.slots, s.bundle)
	b.pulling.Done()
}

func (b *bundles) fill(s *slot, m mounted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.mounted, s.cancel = m, nil
	b.pulling.Done()
}

func (b *bundles) take(bundle string) (mounted, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.slots[bundle]
	if !ok {
		return mounted{}, false, nil
	}
	if s.cancel != nil {
		return mounted{}, false, fault.Newf(fault.Conflict, "bundle %q is being pulled", bundle)
	}
	delete(b.slots, bundle)
	return s.mounted, true, nil
}

func (b *bundles) putBack(bundle string, m mounted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, taken := b.slots[bundle]; !taken {
		b.slots[bundle] = &slot{bundle: bundle, mounted: m}
	}
}

// close cancels the pulls under way, waits for them and hands over all that is
// mounted. It says whether it was the first to do so.
func (b *bundles) close() (all []mounted, first bool) {
	b.mu.Lock()
	first, b.closed = !b.closed, true
	for _, s := range b.slots {
		if s.cancel != nil {
			s.cancel()
		}
	}
	b.mu.Unlock()
	b.pulling.Wait()

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.slots {
		all = append(all, s.mounted)
	}
	clear(b.slots)
	return all, first
}
