package kata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// choices turns fuzz bytes into decisions; at the end all decisions are the first.
type choices struct{ data []byte }

func (c *choices) next() int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b)
}

func (c *choices) bytes() []byte {
	n := min(c.next(), len(c.data))
	out := c.data[:n]
	c.data = c.data[n:]
	return out
}

func pick[T any](c *choices, from ...T) T { return from[c.next()%len(from)] }

// Words that a hostile host would try. The first of each is a good one.
func (c *choices) id() string {
	return pick(c, "app1", "app2", "", "..", "a/b", "runtime", "sandbox", "app1/../app2", "x\x00y", strings.Repeat("a", 300))
}

func (c *choices) execID() string { return pick(c, "", "x1", "x2", "../x", "app1", "/") }

// path is one of the protocol; some lead outside.
func (c *choices) path() string {
	const g = sandbox.GuestDir
	return pick(c, g+"/shared/containers/app1/rootfs", g+"/shared/containers/f", g+"/shared/containers/d/f", g+"/sandbox/ephemeral/e",
		g+"/sandbox/shm", g+"/shared/containers/link", g+"/shared/containers/link/f", g+"/shared/containers/../../runtime/f", g+"/app1/rootfs",
		g+"/../outside/canary", "/etc", "relative", "", g, g+"/sandbox-ns/ipc", g+"/shared/containers/\x00", "/proc/self/root", g+"/shared/containers/")
}

func (c *choices) storage() *agent.Storage {
	return &agent.Storage{
		Driver: pick(c, "ephemeral", "local", "bind", "image_guest_pull", "virtio-fs", "9p", ""), Source: pick(c, "tmpfs", c.path(), "pause", "/"),
		Fstype: pick(c, "tmpfs", "overlay", "ext4", ""), MountPoint: c.path(),
		Options: pick(c, nil, []string{"mode=0777"}, []string{"bind"}, []string{"fsgid=7"}, []string{"size=1m,ro"}, []string{"remount"}, []string{"mode=99999"}),
	}
}

func (c *choices) spec() *agent.Spec {
	s := &agent.Spec{
		Process: &agent.Process{Args: []string{"/bin/x"}, Cwd: pick(c, "/", "/proc/self/fd/3", ""), User: &agent.User{}, Terminal: c.next()%16 == 15},
		Root:    &agent.Root{Path: c.path()},
		Linux:   &agent.Linux{CgroupsPath: pick(c, "/v/x", "", "/", "../../x", "a:b:c", "a:..:..")},
	}
	for range c.next() % 3 {
		s.Mounts = append(s.Mounts, &agent.Mount{
			Destination: pick(c, "/m", "..", "/proc"), Source: c.path(), Type: pick(c, "bind", "proc", "ext4", "local", ""),
			Options: pick(c, nil, []string{"rbind"}, []string{"rshared"}),
		})
	}
	switch c.next() % 8 {
	case 1:
		s.Hooks = &agent.Hooks{Prestart: []*agent.Hook{{Path: "/bin/sh"}}}
	case 2:
		s.Linux.Namespaces = []*agent.LinuxNamespace{{Type: pick(c, "network", "pid", "user", "time"), Path: c.path()}}
	case 3:
		s.Linux.Devices = []*agent.LinuxDevice{{Path: c.path(), Type: "b", Major: 8}}
	case 4:
		s.Linux.Sysctl = map[string]string{pick(c, "net.x", "kernel.core_pattern", "net./../x"): "1"}
	case 5:
		s.Annotations = map[string]string{pick(c, "run.oci.handler", "a"): "b"}
	case 6:
		s.Process, s.Linux = nil, nil
	case 7:
		return nil
	}
	return s
}

// request is one call: its name and message.
func (c *choices) request() (string, proto.Message) {
	id, exec := c.id(), c.execID()
	switch c.next() % 22 {
	case 0:
		return "CreateContainer", &agent.CreateContainerRequest{ContainerId: id, ExecId: exec, OCI: c.spec(), SandboxPidns: c.next()%2 == 1}
	case 1:
		return "CreateSandbox", &agent.CreateSandboxRequest{Hostname: "h", Storages: []*agent.Storage{c.storage()}}
	case 2:
		return "CreateContainer", &agent.CreateContainerRequest{ContainerId: id, OCI: c.spec(), Storages: []*agent.Storage{c.storage(), c.storage()}}
	case 3:
		return "StartContainer", &agent.StartContainerRequest{ContainerId: id}
	case 4:
		return "ExecProcess", &agent.ExecProcessRequest{ContainerId: id, ExecId: exec, Process: &agent.Process{Args: []string{"x"}, Cwd: pick(c, "/", "/proc/1/root")}}
	case 5:
		return "SignalProcess", &agent.SignalProcessRequest{ContainerId: id, ExecId: exec, Signal: uint32(pick(c, 9, 15, 0, 64, 65))}
	case 6:
		return "RemoveContainer", &agent.RemoveContainerRequest{ContainerId: id, Timeout: uint32(c.next() % 2)}
	case 7:
		return "CopyFile", &agent.CopyFileRequest{
			Path: c.path(), FileMode: uint32(pick(c, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFBLK, 0)) | 0o644, DirMode: 0o755,
			FileSize: int64(pick(c, 3, 0, -1, 1<<40)), Offset: int64(pick(c, 0, 1, -1, 1<<40)), Data: pick(c, []byte("abc"), nil, []byte("../../outside/canary"), []byte("/")),
		}
	case 8:
		return "ReadStdout", &agent.ReadStreamRequest{ContainerId: id, ExecId: exec, Len: uint32(pick(c, 1, 0, 1<<31))}
	case 9:
		return "ReadStderr", &agent.ReadStreamRequest{ContainerId: id, ExecId: exec, Len: 10}
	case 10:
		return "WriteStdin", &agent.WriteStreamRequest{ContainerId: id, ExecId: exec, Data: c.bytes()}
	case 11:
		return "CloseStdin", &agent.CloseStdinRequest{ContainerId: id, ExecId: exec}
	case 12:
		return "WaitProcess", &agent.WaitProcessRequest{ContainerId: id, ExecId: exec}
	case 13:
		return "PauseContainer", &agent.PauseContainerRequest{ContainerId: id}
	case 14:
		return "ResumeContainer", &agent.ResumeContainerRequest{ContainerId: id}
	case 15:
		return "UpdateContainer", &agent.UpdateContainerRequest{ContainerId: id, Resources: &agent.LinuxResources{}}
	case 16:
		return "StatsContainer", &agent.StatsContainerRequest{ContainerId: id}
	case 17:
		return "GetOOMEvent", &agent.GetOOMEventRequest{}
	case 18:
		return "GetDiagnosticData", &agent.GetDiagnosticDataRequest{LogType: "termination_log", ContainerId: id}
	case 19:
		return "TtyWinResize", &agent.TtyWinResizeRequest{ContainerId: id, ExecId: exec, Row: 1 << 20}
	case 20:
		return "DestroySandbox", &agent.DestroySandboxRequest{}
	}
	// Bytes of the fuzzer for whatever method.
	methods := agent.File_agent_agent_proto.Services().ByName("AgentService").Methods()
	name := string(methods.Get(c.next() % methods.Len()).Name())
	if slow[name] {
		name = "CreateContainer"
	}
	m := &agent.CheckRequest{}
	m.ProtoReflect().SetUnknown(c.bytes())
	return name, m
}

// slow methods wait for the machine's hardware, or change the machine itself.
var slow = map[string]bool{
	"OnlineCPUMem": true, "SetGuestDateTime": true, "ReseedRandomDev": true, "MemHotplugByProbe": true, "SetIPTables": true, "GetIPTables": true,
	"UpdateInterface": true, "UpdateRoutes": true, "AddARPNeighbors": true,
}

// life is the good order of calls: a sandbox, a container, a process in it, the
// end of both.
var life = []byte{
	0, 0, 1, 0, 0, 0, 0, 3, 0, // CreateSandbox with a tmpfs
	0, 0, 0, 0, 0, 3, 0, 0, 0, 0, // CreateContainer in it
	0, 0, 3, // StartContainer
	0, 1, 4, 0, // ExecProcess
	0, 0, 5, 0, // SignalProcess
	0, 0, 6, 0, // RemoveContainer
	0, 0, 20, // DestroySandbox
}

func withFakeRuntime(t *testing.T) podOption {
	t.Helper()
	fake, err := filepath.Abs("testdata/fakeruntime.sh")
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Runtime = fake }
}

// The fuzzer begins with a life that succeeds: it starts behind the first
// refusals, not before them.
func TestFuzzedLife(t *testing.T) {
	p := newPod(t, withFakeRuntime(t))
	c, n := &choices{life}, 0
	for ; len(c.data) > 0; n++ {
		name, req := c.request()
		if err := p.raw.Call(t.Context(), "grpc.AgentService", name, req, &agent.CheckRequest{}); err != nil {
			t.Fatalf("%s %v: %v", name, req, err)
		}
	}
	if n != 7 {
		t.Errorf("%d calls", n)
	}
}

// maxCalls bounds one sequence.
const maxCalls = 24

// A hostile host may call anything in any order: nothing panics, hangs, or is
// changed outside of the state directory, and the end leaves nothing behind.
func FuzzCalls(f *testing.F) {
	f.Add(life)
	f.Add(append(life[:9:9], 2, 1, 4, 9, 0, 0, 20, 0, 0, 20))
	f.Add([]byte{0, 0, 7, 5, 2, 0, 0, 2, 0, 0, 7, 6, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 21, 3, 9, 10, 200, 1, 1, 1, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 512 {
			return
		}
		p := newPod(t, withFakeRuntime(t))
		outside := filepath.Join(filepath.Dir(p.dir), "outside")
		if err := os.Mkdir(outside, 0o700); err != nil {
			t.Fatal(err)
		}
		canary := filepath.Join(outside, "canary")
		if err := os.WriteFile(canary, []byte("sings"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &choices{data}
		for range maxCalls {
			if len(c.data) == 0 {
				break
			}
			name, req := c.request()
			if err := p.attempt(name, req); err != nil {
				t.Fatalf("%s %v: %v", name, req, err)
			}
		}
		if err := p.attempt("DestroySandbox", &agent.DestroySandboxRequest{}); err != nil {
			t.Fatalf("the end: %v", err)
		}
		if raw, err := os.ReadFile(canary); err != nil || string(raw) != "sings" {
			t.Fatalf("outside was reached: %q, %v", raw, err)
		}
		if list, err := os.ReadDir(outside); err != nil || len(list) != 1 {
			t.Fatalf("outside has %v, %v", list, err)
		}
		if on := append(mountsUnder(t, outside), mountsUnder(t, "/etc")...); len(on) > 0 {
			t.Fatalf("mounted outside: %v", on)
		}
		if left, err := filepath.Glob(p.dir + "/app*"); err != nil || len(left) > 0 {
			t.Fatalf("bundles left: %v, %v", left, err)
		}
	})
}

// attempt makes a call that may be refused, but not in a way that tells of a bug.
// Those that wait are given up.
func (p *pod) attempt(name string, req proto.Message) error {
	patience := 30 * time.Second
	switch name {
	case "ReadStdout", "ReadStderr", "WaitProcess", "GetOOMEvent", "WriteStdin":
		patience = 5 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	err := p.raw.Call(ctx, "grpc.AgentService", name, req, &agent.CheckRequest{})
	switch code := status.Code(err); {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded:
		if patience > time.Second {
			return fmt.Errorf("hangs: %w", err)
		}
		return nil
	case code == codes.Unknown:
		return fmt.Errorf("an error without a code: %w", err)
	case status.Convert(err).Message() == status.Convert(panicError()).Message():
		return errors.New("the call panicked")
	}
	return nil
}
