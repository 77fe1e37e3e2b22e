package kata

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

func TestGetMetrics(t *testing.T) {
	t.Parallel()
	p := newPod(t, func(c *Config) { c.Metrics = func() string { return "guest_agent_image_pulls_total 1\n" } })
	got, err := p.client.GetMetrics(t.Context(), &agent.GetMetricsRequest{})
	if err != nil || got.Metrics != "guest_agent_image_pulls_total 1\n" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := newPod(t).client.GetMetrics(t.Context(), &agent.GetMetricsRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without metrics: %v", err)
	}
}
