package kata

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

func withStore(p *pod, id, source string) *agent.CreateContainerRequest {
	req := p.request(id, "/bin/ls", "/dev/trusted_store")
	req.OCI.Linux.Devices = []*agent.LinuxDevice{{Path: trustedPath, Type: "b", Major: 253, Minor: 99}}
	req.OCI.Linux.Resources.Devices = []*agent.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: 253, Minor: 99, Access: "rwm"}}
	req.Devices = []*agent.Device{{Type: "blk", Id: source, ContainerPath: trustedPath}}
	return req
}

// The disk is taken for images, once, and no container sees it.
func TestTrustedStore(t *testing.T) {
	t.Parallel()
	disk, other := newDisk(t, "x"), newDisk(t, "y")
	var kept []device.Block
	fail := errors.New("the disk is broken")
	p := newSandbox(t, func(c *Config) {
		c.Devices = disks{"02/00": disk, "03": other}
		c.KeepImages = func(_ context.Context, b device.Block) error {
			if fail != nil {
				return fail
			}
			kept = append(kept, b)
			return nil
		}
	})
	_, err := p.client.CreateContainer(t.Context(), withStore(p, "app1", "02/00"))
	wantCode(t, err, codes.Internal)
	fail = nil // what failed can be tried again
	for _, id := range []string{"app1", "app2"} {
		p.create(withStore(p, id, "02/00"))
		p.start(id)
		if code := p.wait(id, ""); code == 0 {
			t.Errorf("%s sees the disk: %s", id, p.output(id, ""))
		}
		p.remove(id)
	}
	if len(kept) != 1 || kept[0] != disk {
		t.Errorf("images are kept on %v", kept)
	}
	_, err = p.client.CreateContainer(t.Context(), withStore(p, "app1", "03"))
	wantCode(t, err, codes.InvalidArgument)
	without := newSandbox(t, func(c *Config) { c.Devices = disks{"02/00": disk} })
	_, err = without.client.CreateContainer(t.Context(), withStore(without, "app1", "02/00"))
	wantCode(t, err, codes.InvalidArgument)
}
