package agent

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/kata"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// images gives the sandbox what it needs of the hub, with a bound on time, and
// keeps the keys of images as what they are: lent. A layer that is mounted cannot
// be taken back, so the end of such a lease means something to a container only
// where it is to be stopped.
type images struct {
	hub     puller
	timeout time.Duration
	leases  kata.Leases

	mu   sync.Mutex
	held map[string]func() // by bundle; gives the lease back
}

// puller is what images needs of a hub.
type puller interface {
	PullImage(ctx context.Context, ref, bundle string) (hub.PulledImage, error)
	ReleaseImage(ctx context.Context, bundle string) error
	AskForKeys(ctx context.Context, i hub.PulledImage) error
}

func newImages(h puller, timeout time.Duration, leases kata.Leases) *images {
	return &images{hub: h, timeout: timeout, leases: leases, held: map[string]func(){}}
}

// PullImage implements sandbox.Images. A bundle's directory has the name of its
// container.
func (i *images) PullImage(ctx context.Context, ref, bundle string) (sandbox.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	img, err := i.hub.PullImage(ctx, ref, bundle)
	if err == nil && len(img.Keys) > 0 {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.held[bundle] = i.leases.Hold(lease.Lease{
			Holder: filepath.Base(bundle), What: "an image's keys",
			Ask: func(ctx context.Context) error { return i.hub.AskForKeys(ctx, img) },
		})
	}
	return sandbox.Image{Digest: img.Digest, Rootfs: img.Rootfs}, err
}

// ReleaseImage implements sandbox.Images.
func (i *images) ReleaseImage(ctx context.Context, bundle string) error {
	if err := i.hub.ReleaseImage(ctx, bundle); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if release, ok := i.held[bundle]; ok {
		release()
		delete(i.held, bundle)
	}
	return nil
}
