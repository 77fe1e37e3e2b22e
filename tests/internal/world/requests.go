package world

import (
	"context"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// OtherRequests plays a host that asks a running guest for more than its pod: a
// shell beside the secrets, and another container of the same image.
func (w *World) OtherRequests(ctx context.Context, g *Guest, running, ref string) (shell, second Refusal, err error) {
	_, err = g.Kata().ExecProcess(ctx, &agent.ExecProcessRequest{
		ContainerId: running, ExecId: "shell",
		Process: &agent.Process{User: &agent.User{}, Args: []string{"/bin/sh"}, Cwd: "/"},
	})
	if shell, err = w.blocked(ctx, err, "ExecProcessRequest"); err != nil {
		return shell, second, err
	}
	config, err := w.ImageConfig(ctx, ref)
	if err != nil {
		return shell, second, err
	}
	config.Entrypoint = []string{"/bin/sh", "-c", "cat /etc/shadow"}
	second, err = w.blocked(ctx, g.Kata().Container(ctx, "second", ref, config), "CreateContainerRequest")
	return shell, second, err
}

// blocked expects a refusal in the words that runtimes know.
func (w *World) blocked(ctx context.Context, err error, request string) (Refusal, error) {
	r, err := w.Refused(ctx, err, fault.PolicyDenied)
	if err != nil {
		return r, err
	}
	if want := request + " is blocked by policy: "; !strings.Contains(r.Public, want) {
		return r, fmt.Errorf("the host reads %q, without %q", r.Public, want)
	}
	return r, nil
}
