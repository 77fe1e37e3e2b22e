package kata_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/hypervisor/api"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/programs"
)

// stub runs hypervisor-stub and connects as the shim does.
func stub(t *testing.T) (client api.HypervisorService, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv-")
	ok(t, err)
	bin := t.TempDir()
	ok(t, programs.Build(t.Context(), bin, "tests/cmd/hypervisor-stub"))
	socket := filepath.Join(dir, "s")
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "hypervisor-stub"), "--listen", socket, "--agent", program, "--dir", filepath.Join(dir, "m"),
		"--cmdline", "vouchsafe.insecure_no_agent_policy=true", "--agent-arg=--rest-listen=", "--agent-arg=--tpm-device=/nonexistent")
	cmd.Stderr = &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	ok(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the stub: %v: %s", err, &log)
		}
		ok(t, os.RemoveAll(dir))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			c := ttrpc.NewClient(conn)
			t.Cleanup(func() { _ = c.Close() })
			return api.NewHypervisorClient(c), dir
		}
		if ctx.Err() != nil {
			t.Fatalf("the stub does not listen: %v", err)
		}
	}
}

// The shim's side: a machine is created and started, its agent runs a pod at the
// socket that was named, and stopping it leaves nothing.
func TestShimWithTheStub(t *testing.T) {
	t.Parallel()
	hv, dir := stub(t)
	ctx := t.Context()
	if v, err := hv.Version(ctx, &api.VersionRequest{Version: "0.0.0"}); err != nil || v.Version != "0.0.0" {
		t.Errorf("version %v, %v", v, err)
	}
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	vm, err := hv.CreateVM(ctx, &api.CreateVMRequest{Id: id, Annotations: map[string]string{"io.katacontainers.config.hypervisor.default_vcpus": "1"}})
	ok(t, err)
	if !strings.HasPrefix(vm.AgentSocketPath, dir) {
		t.Fatalf("the agent is to listen at %q", vm.AgentSocketPath)
	}
	_, err = hv.CreateVM(ctx, &api.CreateVMRequest{Id: id})
	wantStatus(t, err, codes.AlreadyExists)
	_, err = hv.StartVM(ctx, &api.StartVMRequest{Id: id})
	ok(t, err)
	_, err = hv.StartVM(ctx, &api.StartVMRequest{Id: id})
	wantStatus(t, err, codes.FailedPrecondition)

	a, err := barepod.Attach(ctx, filepath.Dir(vm.AgentSocketPath))
	ok(t, err)
	ok(t, a.Sandbox(ctx, false))
	ok(t, a.Run(ctx, "app1", "/bin/sh", "-c", "hostname; echo $$; exit 5"))
	got, err := a.Finish(ctx, "app1", "app1")
	if err != nil || got.Out != "pod1\n1\n" || got.Status != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	ok(t, a.Run(ctx, "app2", "/bin/sleep", "100000"))
	_, err = a.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: "app1"})
	ok(t, err)
	ok(t, a.Detach())
	for range 2 { // a shim asks again
		_, err = hv.StopVM(ctx, &api.StopVMRequest{Id: id})
		ok(t, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "m")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/*" + a.Cgroup); err != nil || len(left) > 0 {
		t.Errorf("cgroups left: %v, %v", left, err)
	}
}

func TestStubRefuses(t *testing.T) {
	t.Parallel()
	hv, _ := stub(t)
	ctx := t.Context()
	for _, id := range []string{"", "../x", "a/b", strings.Repeat("a", 200)} {
		_, err := hv.CreateVM(ctx, &api.CreateVMRequest{Id: id})
		wantStatus(t, err, codes.InvalidArgument)
	}
	_, err := hv.StartVM(ctx, &api.StartVMRequest{Id: "nobody"})
	wantStatus(t, err, codes.NotFound)
	_, err = hv.CreateVM(ctx, &api.CreateVMRequest{Id: "x", Annotations: map[string]string{"io.katacontainers.config.hypervisor.cc_init_data": "version = \"0.1.0\""}})
	wantStatus(t, err, codes.FailedPrecondition)
}

func wantStatus(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%v, want %v", err, want)
	}
}
