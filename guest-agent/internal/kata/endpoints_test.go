package kata

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// An image may close endpoints for good: what is not listed is answered in the
// field's words, before any policy, and health is no endpoint.
func TestEndpoints(t *testing.T) {
	p := newPod(t, func(c *Config) { c.Endpoints = []string{"GuestDetailsRequest", "ListRoutes"} })
	ctx := t.Context()
	if _, err := p.client.GetGuestDetails(ctx, &agent.GuestDetailsRequest{}); err != nil {
		t.Errorf("an endpoint of the list: %v", err)
	}
	_, err := p.client.ListRoutes(ctx, &agent.ListRoutesRequest{})
	wantCode(t, err, codes.Unavailable) // open, and there is no network
	_, err = p.client.CreateSandbox(ctx, &agent.CreateSandboxRequest{SandboxId: "s1"})
	wantCode(t, err, codes.Unimplemented)
	if text := status.Convert(err).Message(); text != "CreateSandboxRequest is blocked" {
		t.Errorf("%q", text)
	}
	if _, err := p.health.Check(ctx, &agent.CheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
}

func TestEndpointNames(t *testing.T) {
	if e, err := newEndpoints(nil); e != nil || err != nil {
		t.Errorf("none: %v, %v", e, err)
	}
	if e, err := newEndpoints([]string{}); e == nil || err != nil || e.check(&agent.CreateSandboxRequest{}) == nil {
		t.Errorf("an empty list: %v, %v", e, err)
	}
	for _, bad := range []string{"", "Check", "CreateContainers", "createcontainer"} {
		if _, err := newEndpoints([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
