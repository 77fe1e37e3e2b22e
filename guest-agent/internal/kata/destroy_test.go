package kata

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// deafImages pulls until it is let go, whatever becomes of the call.
type deafImages struct {
	pulling, release chan struct{}
	*images
}

func (d deafImages) PullImage(_ context.Context, ref, bundle string) (sandbox.Image, error) {
	close(d.pulling)
	<-d.release
	return d.images.PullImage(context.Background(), ref, bundle)
}

// A creation that does not hear that the sandbox is being destroyed keeps neither
// the other containers alive nor the agent from ending.
func TestDestroyDoesNotWaitForTheDeaf(t *testing.T) {
	t.Parallel()
	deaf := deafImages{pulling: make(chan struct{}), release: make(chan struct{}), images: &images{t: t}}
	p := newSandbox(t, func(c *Config) { c.Images = deaf })
	p.server.patience = 50 * time.Millisecond
	p.run("app1", "/bin/sleep", "1000")
	created := make(chan error, 1)
	go func() {
		_, err := p.client.CreateContainer(context.Background(), pullRequest(p, "app2", "/bin/sleep", "1000"))
		created <- err
	}()
	<-deaf.pulling
	if err := p.server.Destroy(t.Context()); err == nil || !strings.Contains(err.Error(), "did not give up") {
		t.Errorf("%v", err)
	}
	select {
	case <-p.server.Done():
	default:
		t.Error("the sandbox is not gone")
	}
	for _, c := range p.server.Containers() {
		t.Errorf("%s still runs", c.ID)
	}
	close(deaf.release)
	if err := <-created; err == nil {
		t.Error("a container was created after the end")
	}
	if left := mountsUnder(t, p.dir); len(left) > 0 {
		t.Errorf("what was left behind left %v", left)
	}
}

// slowDisks look until the call that wants one is over.
type slowDisks struct {
	disks
	looking chan struct{}
}

func (d slowDisks) Find(ctx context.Context, _ device.Address) (device.Block, error) {
	close(d.looking)
	<-ctx.Done()
	return device.Block{}, ctx.Err()
}

// A sandbox that is being made gives up when it is destroyed, and leaves nothing.
func TestDestroyWhileTheSandboxIsMade(t *testing.T) {
	t.Parallel()
	slow := slowDisks{looking: make(chan struct{})}
	p := newPod(t, func(c *Config) { c.Devices = slow })
	created := make(chan error, 1)
	go func() {
		_, err := p.client.CreateSandbox(context.Background(), &agent.CreateSandboxRequest{
			Hostname: "pod1", Storages: []*agent.Storage{{Driver: "blk", Source: "02", Fstype: "ext4", MountPoint: sandbox.GuestDir + "/sandbox/storage/x"}},
		})
		created <- err
	}()
	<-slow.looking
	if err := p.server.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	wantCode(t, <-created, codes.Unavailable)
	if left := mountsUnder(t, p.dir); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}
