package kata

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

// byContainer allows the output of one container, and a policy of its like.
const byContainer = ordinary + `
	CreateContainerRequest := true
	RemoveContainerRequest := true
	SetPolicyRequest := true
	ReadStreamRequest if { input.container_id == "app1"; input.len > 0 }
`

// While a container's output is read as fast as it comes, another policy denies it:
// of the reads that begin after that was answered none has anything.
func TestSetPolicyWhileReading(t *testing.T) {
	t.Parallel()
	p := newSandbox(t, underPolicy(t, nil, byContainer))
	p.run("app1", "/bin/cat", "/dev/zero")
	var denied atomic.Bool
	const some = 50 // reads, by the answers that are remembered
	read, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			before := denied.Load()
			resp, err := p.client.ReadStdout(t.Context(), &agent.ReadStreamRequest{ContainerId: "app1", Len: 32768})
			if before && len(resp.GetData()) > 0 {
				t.Errorf("%d bytes of denied output", len(resp.Data))
			}
			if err != nil || len(resp.Data) == 0 {
				ended <- err
				return
			}
			if n == some {
				close(read)
			}
		}
	}()
	<-read
	if _, err := p.client.SetPolicy(t.Context(), &agent.SetPolicyRequest{Policy: "package agent_policy\n" + ordinary + "RemoveContainerRequest := true"}); err != nil {
		t.Fatal(err)
	}
	denied.Store(true)
	if err := p.signal("app1", "", 9); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	p.remove("app1")
}

// A read whose answer is at hand is served by the one who reads the connection;
// every other is judged without keeping that one.
func TestWhoJudges(t *testing.T) {
	t.Parallel()
	var c Config
	underPolicy(t, nil, byContainer)(&c)
	engine, _ := c.Policy.(*policy.Engine)
	s := &Server{policy: engine, log: slog.New(slog.DiscardHandler), refuse: untold}
	s.awake.Store(true)
	for _, step := range []struct {
		what string
		m    proto.Message
		want string // what was done with the call, in order
	}{
		{"the first", &agent.ReadStreamRequest{ContainerId: "app1", Len: 1}, "waited carried out"},
		{"the same again", &agent.ReadStreamRequest{ContainerId: "app1", Len: 1}, "carried out"},
		{"another container's", &agent.ReadStreamRequest{ContainerId: "app2", Len: 1}, "waited carried out muted"},
		{"and again", &agent.ReadStreamRequest{ContainerId: "app2", Len: 1}, "waited carried out muted"},
		{"a constant", &agent.StartContainerRequest{ContainerId: "app2"}, "carried out"},
		{"no rule", &agent.ExecProcessRequest{ContainerId: "app1"}, "waited"},
	} {
		call := &playedCall{method: "/grpc.AgentService/X", request: step.m}
		_ = s.around(t.Context(), call)
		if call.did != step.want {
			t.Errorf("%s: %s, want %s", step.what, call.did, step.want)
		}
	}
}

// playedCall writes down what is done with it.
type playedCall struct {
	method  string
	request proto.Message
	do      func() error // nil for nothing
	did     string
}

func (c *playedCall) Method() string         { return c.method }
func (c *playedCall) Request() proto.Message { return c.request }
func (c *playedCall) Wait()                  { c.note("waited") }

func (c *playedCall) Do(ctx context.Context) error {
	c.note("carried out")
	if muted(ctx) {
		c.note("muted")
	}
	if c.do == nil {
		return nil
	}
	return c.do()
}

func (c *playedCall) note(what string) {
	if c.did != "" {
		c.did += " "
	}
	c.did += what
}
