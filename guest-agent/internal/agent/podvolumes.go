package agent

import (
	"context"
	"os"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// podVolumes are the encrypted volumes of containers: new ones for emptyDir, and
// those that last, whose keys are lent.
type podVolumes struct {
	securemount.Ephemeral
	keyed keyedMounter
	lent  lentVolumes

	mu   sync.Mutex
	held map[string]func() // by mount point: gives the lease back
}

// keyedMounter is the part of the [securemount.Mounter] for volumes that last.
type keyedMounter interface {
	MountKey(ctx context.Context, node, key string, format bool, fs securemount.Filesystem, flags uintptr, dir *os.File) (string, error)
	OpenKey(ctx context.Context, node, key string, format bool, link string) error
	Unmount(ctx context.Context, path string) error
}

func newPodVolumes(s *settings.Settings, lent lentVolumes, m *securemount.Mounter) *podVolumes {
	return &podVolumes{
		Ephemeral: securemount.Ephemeral{Mounter: m, UnsafeNoIntegrity: s.Agent.InsecureNoStorageIntegrity},
		keyed:     m, lent: lent, held: map[string]func(){},
	}
}

// MountKey is [securemount.Mounter.MountKey].
func (p *podVolumes) MountKey(ctx context.Context, node string, key sandbox.Key, how sandbox.Mount, dir *os.File) (string, error) {
	path, err := p.keyed.MountKey(ctx, node, key.Location, key.Format, securemount.Filesystem(how.Filesystem), how.Flags, dir)
	if err != nil {
		return "", err
	}
	p.hold(ctx, path)
	return path, nil
}

// OpenKey is [securemount.Mounter.OpenKey].
func (p *podVolumes) OpenKey(ctx context.Context, node string, key sandbox.Key, link string) error {
	if err := p.keyed.OpenKey(ctx, node, key.Location, key.Format, link); err != nil {
		return err
	}
	p.hold(ctx, link)
	return nil
}

func (p *podVolumes) hold(ctx context.Context, path string) {
	giveBack := p.lent.hold(ctx, path)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[path] = giveBack
}

// Unmount takes a volume of either kind away. Its lease goes first: whoever asked
// for it again when the volume has gone would hear that there is none, and take
// that for a refusal.
func (p *podVolumes) Unmount(ctx context.Context, path string) error {
	p.mu.Lock()
	giveBack := p.held[path]
	delete(p.held, path)
	p.mu.Unlock()
	if giveBack == nil {
		return p.keyed.Unmount(ctx, path)
	}
	giveBack()
	if err := p.keyed.Unmount(ctx, path); err != nil {
		p.hold(ctx, path) // it stands
		return err
	}
	return nil
}
