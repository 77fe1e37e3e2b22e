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
	lent lentVolumes

	mu   sync.Mutex
	held map[string]func() // by mount point: gives the lease back
}

func newPodVolumes(s *settings.Settings, lent lentVolumes, m *securemount.Mounter) *podVolumes {
	return &podVolumes{
		Ephemeral: securemount.Ephemeral{Mounter: m, UnsafeNoIntegrity: s.Agent.InsecureNoStorageIntegrity},
		lent:      lent, held: map[string]func(){},
	}
}

// MountKey is [securemount.Mounter.MountKey].
func (p *podVolumes) MountKey(ctx context.Context, node string, key sandbox.Key, how sandbox.Mount, dir *os.File) (string, error) {
	path, err := p.Mounter.MountKey(ctx, node, key.Location, key.Format, securemount.Filesystem(how.Filesystem), how.Flags, dir)
	if err != nil {
		return "", err
	}
	giveBack := p.lent.hold(ctx, path)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[path] = giveBack
	return path, nil
}

// Unmount takes a volume of either kind away.
func (p *podVolumes) Unmount(ctx context.Context, path string) error {
	if err := p.Ephemeral.Unmount(ctx, path); err != nil {
		return err
	}
	p.mu.Lock()
	giveBack := p.held[path]
	delete(p.held, path)
	p.mu.Unlock()
	if giveBack != nil {
		giveBack()
	}
	return nil
}
