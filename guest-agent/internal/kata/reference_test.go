package kata

import (
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// The page speaks of every method, and of none that is not.
func TestReference(t *testing.T) {
	list := agent.File_agent_agent_proto.Services().ByName("AgentService").Methods()
	if list.Len() != len(methods) {
		t.Errorf("%d methods are described, the service has %d", len(methods), list.Len())
	}
	for i := range list.Len() {
		if methods[string(list.Get(i).Name())] == "" {
			t.Errorf("nothing is said of %s", list.Get(i).Name())
		}
	}
	if page := Reference(); !strings.Contains(page, "| `SetIPTables` | `SetIPTablesRequest` | replaces them, where it has `iptables-restore` | never |") {
		t.Error(page)
	}
}
