package kata

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// Every method of the protocol is served, with its own request.
func TestMethodsAreThoseOfTheProtocol(t *testing.T) {
	t.Parallel()
	served := newPod(t).server.RPC()
	if err := served.Serves(agent.File_agent_agent_proto.Services().ByName("AgentService")); err != nil {
		t.Error(err)
	}
	if err := served.Serves(agent.File_agent_health_proto.Services().ByName("Health")); err != nil {
		t.Error(err)
	}
}
