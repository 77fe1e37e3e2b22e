package kata

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// A machine that is still being set up says that its agent is there, and does
// nothing that the host asks for before it is complete.
func TestNothingBeforeTheMachineIsReady(t *testing.T) {
	t.Parallel()
	waiting, complete := make(chan struct{}), make(chan struct{})
	p := newPod(t, func(c *Config) {
		c.Ready = func(ctx context.Context) error {
			select {
			case waiting <- struct{}{}:
			case <-complete:
				return nil
			}
			select {
			case <-complete:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	created := make(chan error, 1)
	go func() {
		_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{Hostname: "pod1"})
		created <- err
	}()
	<-waiting
	if resp, err := p.health.Check(t.Context(), &agent.CheckRequest{}); err != nil || resp.GetStatus() != agent.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", resp, err)
	}
	select {
	case err := <-created:
		t.Errorf("a sandbox on a machine that is not set up: %v", err)
	default:
	}
	close(complete)
	if err := <-created; err != nil {
		t.Error(err)
	}
}

// What keeps a machine from being set up is not passed over.
func TestNeverReady(t *testing.T) {
	t.Parallel()
	p := newPod(t, func(c *Config) {
		c.Ready = func(context.Context) error { return refusef(codes.Unavailable, "no modules") }
	})
	_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{Hostname: "pod1"})
	wantCode(t, err, codes.Unavailable)
}
