// Package kata_test plays the runtimes' part against the agent's program: a
// whole pod as Kubernetes makes it, with the conventions of both runtimes and
// with both OCI runtimes; the network of peer pods; and the shim's side of a
// hypervisor.
package kata_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

// program is the agent, built once.
var program string

func TestMain(m *testing.M) {
	code, err := setUp(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop/kata:", err)
		code = 1
	}
	os.Exit(code)
}

func setUp(m *testing.M) (int, error) {
	if what := barepod.Missing("runc", "mountpoint"); what != "" {
		if os.Getenv("CI") != "" {
			return 1, fmt.Errorf("CI lacks %s", what)
		}
		fmt.Fprintf(os.Stderr, "interop/kata: SKIPPED, all of it: this needs %s\n", what)
		return 0, nil
	}
	dir, err := os.MkdirTemp("", "interop-kata-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if program, err = barepod.Build(context.Background(), dir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// start runs an agent until the test ends.
func start(t *testing.T, cfg barepod.Config) *barepod.Agent {
	t.Helper()
	cfg.Program = program
	if what := barepod.Missing(cfg.Runtime); cfg.Runtime != "" && what != "" {
		t.Skipf("needs %s", what)
	}
	a, err := barepod.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the agent's log:\n%s", a.Log())
		}
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// A shim is a runtime's manners: how it names a container's first process, and
// how it ends an input (kata-agent 2.16).
type shim struct {
	*barepod.Agent
	rust bool
}

// first is the exec id of a container's first process.
func (s shim) first(id string) string {
	if s.rust {
		return ""
	}
	return id
}

func (s shim) closeStdin(ctx context.Context, id, execID string) error {
	if s.rust {
		_, err := s.WriteStdin(ctx, &agent.WriteStreamRequest{ContainerId: id, ExecId: execID})
		return err
	}
	_, err := s.CloseStdin(ctx, &agent.CloseStdinRequest{ContainerId: id, ExecId: execID})
	return err
}

// request is a container of the pod.
func (s shim) request(t *testing.T, id string, args ...string) *agent.CreateContainerRequest {
	t.Helper()
	req, err := s.Request(id, args...)
	if err != nil {
		t.Fatal(err)
	}
	req.ExecId = s.first(id)
	return req
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
