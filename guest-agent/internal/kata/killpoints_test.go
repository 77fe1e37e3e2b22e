package kata

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// dyingRuntime is runc that is killed once, at its first call of a command:
// before it has done anything, or when it is done and has not said so.
func dyingRuntime(t *testing.T, command string, after bool) string {
	t.Helper()
	dir := t.TempDir()
	work := ""
	if after {
		work = `runc "$@"`
	}
	script := fmt.Sprintf(`#!/bin/sh
case " $* " in
*" %s "*) if mkdir %s/died 2>/dev/null; then
	%s
	kill -9 $$
fi ;;
esac
exec runc "$@"
`, command, dir, work)
	path := filepath.Join(dir, "runtime")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// step is one call of a container's life.
type step struct {
	name string // of the runtime's command
	call func(context.Context, *pod) error
	// unsure marks a call that may be refused when it is repeated, because the
	// first one was carried out.
	unsure bool
}

func containerLife() []step {
	return []step{
		{"create", func(ctx context.Context, p *pod) error {
			_, err := p.client.CreateContainer(ctx, p.request("app1", "/bin/sleep", "1000"))
			return err
		}, false},
		{"start", func(ctx context.Context, p *pod) error {
			_, err := p.client.StartContainer(ctx, &agent.StartContainerRequest{ContainerId: "app1"})
			return err
		}, true},
		{"exec", func(ctx context.Context, p *pod) error {
			_, err := p.client.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x", Process: &agent.Process{
				User: &agent.User{}, Args: []string{"/bin/sleep", "1000"}, Cwd: "/",
			}})
			return err
		}, false},
		{"pause", func(ctx context.Context, p *pod) error {
			_, err := p.client.PauseContainer(ctx, &agent.PauseContainerRequest{ContainerId: "app1"})
			return err
		}, true},
		{"resume", func(ctx context.Context, p *pod) error {
			_, err := p.client.ResumeContainer(ctx, &agent.ResumeContainerRequest{ContainerId: "app1"})
			return err
		}, true},
		{"update", func(ctx context.Context, p *pod) error {
			_, err := p.client.UpdateContainer(ctx, &agent.UpdateContainerRequest{ContainerId: "app1", Resources: &agent.LinuxResources{CPU: &agent.LinuxCPU{Shares: 512}}})
			return err
		}, false},
		{"kill", func(ctx context.Context, p *pod) error {
			_, err := p.client.SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: "app1", Signal: uint32(unix.SIGKILL)})
			return err
		}, false},
		{"delete", func(ctx context.Context, p *pod) error {
			_, err := p.client.RemoveContainer(ctx, &agent.RemoveContainerRequest{ContainerId: "app1", Timeout: 30})
			return err
		}, false},
	}
}

// Wherever the OCI runtime is killed, the host gets an error with a code, or
// none because there was another way; the call can be repeated, the container
// can be removed, and nothing is left. Not parallel: it looks at all children of
// this process.
func TestRuntimeKilledAnywhere(t *testing.T) {
	for _, at := range containerLife() {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, done %v", at.name, after), func(t *testing.T) {
				runtime := dyingRuntime(t, at.name, after)
				p := newSandbox(t, func(c *Config) { c.Runtime = runtime })
				for _, s := range containerLife() {
					err := s.call(t.Context(), p)
					if err == nil {
						continue
					}
					if s.name != at.name {
						t.Fatalf("%s: %v", s.name, err)
					}
					if code := status.Code(err); code != codes.Internal {
						t.Errorf("%s: code %v: %v", s.name, code, err)
					}
					if err := s.call(t.Context(), p); err != nil && !s.unsure && status.Code(err) != codes.NotFound {
						t.Errorf("%s once more: %v", s.name, err)
					}
				}
				if _, err := os.Stat(filepath.Join(filepath.Dir(runtime), "died")); err != nil {
					t.Errorf("the runtime was not killed: %v", err)
				}
				if left, err := filepath.Glob(p.dir + "/app1*"); err != nil || len(left) > 0 {
					t.Errorf("left: %v, %v", left, err)
				}
				if c := children(t); len(c) > 0 {
					t.Errorf("children left: %v", c)
				}
				if left, err := filepath.Glob("/sys/fs/cgroup/*/vouchsafe-" + filepath.Base(filepath.Dir(p.dir))); err != nil || len(left) > 0 {
					t.Errorf("cgroups left: %v, %v", left, err)
				}
			})
		}
	}
}
