package kata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/container"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

var reaper *container.Reaper

// The reaper needs the main thread, as in the agent.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // only init runs on the process's main thread, which the reaper needs

func TestMain(m *testing.M) {
	var err error
	if reaper, err = container.NewReaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() {
		code <- m.Run()
		if path, err := pauseBinary(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		cancel()
	}()
	if err := reaper.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(<-code)
}

const busybox = "/bin/busybox"

// needs skips where a test cannot run at all.
func needs(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs a static /bin/busybox (Debian: busybox-static)")
	}
}

// pauseBinary builds the pause program by itself, which is quicker than building
// the agent.
var pauseBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pause-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "pause")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./testdata/pause")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the pause program: %w\n%s", err, out)
	}
	return path, nil
})

// pod is an agent behind a real socket, and a runtime's view of it.
type pod struct {
	t      *testing.T
	server *Server
	client agent.AgentServiceService
	health agent.HealthService
	dir    string
	raw    *ttrpc.Client
	stop   func()
}

type podOption func(*Config)

// newPod serves an agent without a sandbox.
func newPod(t *testing.T, options ...podOption) *pod {
	t.Helper()
	needs(t)
	dir, err := os.MkdirTemp("", "pod-") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{StateDir: filepath.Join(dir, "state"), Runtime: "runc", Reaper: reaper, Version: "test", Logger: testLogger(), UnsafeNoPolicy: true,
		Machine: &fakeMachine{}, Tables: &fakeTables{}} // no test changes the machine that it runs on
	for _, o := range options {
		o(&cfg)
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t: t, server: s, dir: cfg.StateDir}
	p.serve(filepath.Join(dir, "agent.sock"))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Destroy(ctx); err != nil {
			t.Errorf("destroy: %v", err)
		}
		p.stop()
		if left := mountsUnder(t, dir); len(left) > 0 {
			t.Errorf("mounts left: %v", left)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

func testLogger() *slog.Logger {
	if os.Getenv("VOUCHSAFE_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (p *pod) serve(socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		p.t.Fatal(err)
	}
	srv := p.server.RPC()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		p.t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	p.raw = c
	p.client, p.health = agent.NewAgentServiceClient(c), agent.NewHealthClient(c)
	p.stop = sync.OnceFunc(func() {
		_ = c.Close()
		if err := srv.Close(); err != nil {
			p.t.Errorf("close the server: %v", err)
		}
		if err := <-served; !errors.Is(err, rpc.ErrClosed) {
			p.t.Errorf("serve: %v", err)
		}
	})
}

// newSandbox serves an agent with a sandbox like that of a real runtime.
func newSandbox(t *testing.T, options ...podOption) *pod {
	t.Helper()
	p := newPod(t, options...)
	_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{
		Hostname: "pod1", SandboxId: "s1", Dns: []string{"nameserver 10.0.0.10", "options ndots:5", ""},
		Storages: []*agent.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs",
			Options:    []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"},
			MountPoint: sandbox.GuestDir + "/sandbox/shm",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// prepareRootfs makes the root of a container that the host shares.
func (p *pod) prepareRootfs(id string) string {
	p.t.Helper()
	root := filepath.Join(p.dir, "shared/containers", id, "rootfs")
	fillRootfs(p.t, root)
	return sandbox.GuestDir + "/shared/containers/" + id + "/rootfs"
}

func fillRootfs(t *testing.T, root string) {
	t.Helper()
	if _, err := os.Stat(root + "/bin/busybox"); err == nil {
		return // from a container of the same name before
	}
	if err := os.MkdirAll(root+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/bin/busybox", raw, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "ls", "sleep", "stty", "id", "hostname", "head", "grep", "echo"} {
		if err := os.Symlink("busybox", root+"/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
}

// request is a container that runs args in a root of its own.
func (p *pod) request(id string, args ...string) *agent.CreateContainerRequest {
	p.t.Helper()
	return &agent.CreateContainerRequest{ContainerId: id, ExecId: id, OCI: &agent.Spec{
		Version: "1.0.2-dev",
		Process: &agent.Process{
			User: &agent.User{}, Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &agent.LinuxCapabilities{
				Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_CHOWN", "CAP_KILL"}, Permitted: []string{"CAP_CHOWN", "CAP_KILL"},
			},
		},
		Root: &agent.Root{Path: p.prepareRootfs(id)},
		Mounts: []*agent.Mount{
			{Destination: "/proc", Source: "proc", Type: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Source: "devpts", Type: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Source: sandbox.GuestDir + "/sandbox/shm", Type: "bind", Options: []string{"rbind"}},
		},
		Linux: &agent.Linux{
			Resources:   &agent.LinuxResources{CPU: &agent.LinuxCPU{Shares: 1024}},
			CgroupsPath: "/vouchsafe-" + filepath.Base(filepath.Dir(p.dir)) + "/" + id,
			Namespaces:  []*agent.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			MaskedPaths: []string{"/proc/kcore"},
		},
	}}
}

func (p *pod) create(req *agent.CreateContainerRequest) {
	p.t.Helper()
	if _, err := p.client.CreateContainer(p.t.Context(), req); err != nil {
		p.t.Fatalf("create %s: %v", req.ContainerId, err)
	}
}

func (p *pod) start(id string) {
	p.t.Helper()
	if _, err := p.client.StartContainer(p.t.Context(), &agent.StartContainerRequest{ContainerId: id}); err != nil {
		p.t.Fatalf("start %s: %v", id, err)
	}
}

// run creates and starts a container.
func (p *pod) run(id string, args ...string) {
	p.t.Helper()
	p.create(p.request(id, args...))
	p.start(id)
}

func (p *pod) exec(id, execID string, args ...string) {
	p.t.Helper()
	_, err := p.client.ExecProcess(p.t.Context(), &agent.ExecProcessRequest{
		ContainerId: id, ExecId: execID,
		Process: &agent.Process{User: &agent.User{}, Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"},
	})
	if err != nil {
		p.t.Fatalf("exec %v: %v", args, err)
	}
}

type readFunc = func(context.Context, *agent.ReadStreamRequest) (*agent.ReadStreamResponse, error)

func (p *pod) readAll(read readFunc, id, execID string) string {
	p.t.Helper()
	var all bytes.Buffer
	for {
		resp, err := read(p.t.Context(), &agent.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: 32768})
		if err != nil {
			p.t.Fatalf("read: %v", err)
		}
		if len(resp.Data) == 0 {
			return all.String()
		}
		all.Write(resp.Data)
	}
}

// readUntil reads until the output contains want.
func (p *pod) readUntil(id, execID, want string) string {
	p.t.Helper()
	var all strings.Builder
	for !strings.Contains(all.String(), want) {
		resp, err := p.client.ReadStdout(p.t.Context(), &agent.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: 32768})
		if err != nil {
			p.t.Fatalf("read: %v", err)
		}
		if len(resp.Data) == 0 {
			p.t.Fatalf("the output ended with %q, without %q", all.String(), want)
		}
		all.Write(resp.Data)
	}
	return all.String()
}

func (p *pod) output(id, execID string) string {
	p.t.Helper()
	return p.readAll(p.client.ReadStdout, id, execID)
}

func (p *pod) wait(id, execID string) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	resp, err := p.client.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: id, ExecId: execID})
	if err != nil {
		p.t.Fatalf("wait for %s/%s: %v", id, execID, err)
	}
	return int(resp.Status)
}

func (p *pod) signal(id, execID string, sig uint32) error {
	_, err := p.client.SignalProcess(p.t.Context(), &agent.SignalProcessRequest{ContainerId: id, ExecId: execID, Signal: sig})
	return err
}

func (p *pod) remove(id string) {
	p.t.Helper()
	if _, err := p.client.RemoveContainer(p.t.Context(), &agent.RemoveContainerRequest{ContainerId: id}); err != nil {
		p.t.Fatalf("remove %s: %v", id, err)
	}
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("code %v, want %v: %v", got, want, err)
	}
}

func mountsUnder(t *testing.T, dir string) []string {
	t.Helper()
	mounts, err := mountinfo.Self()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(mountinfo.Below(mounts, dir), func(at string) bool { return at == dir })
}
