package kata

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// emptyRequests is what every method that is implemented answers to a request
// without a single field, while there is a sandbox with a container.
var emptyRequests = map[string]codes.Code{
	"CreateSandbox":                  codes.AlreadyExists,
	"GetGuestDetails":                codes.OK, // asks for nothing in particular
	"RemoveStaleVirtiofsShareMounts": codes.OK,
	"GetOOMEvent":                    codes.DeadlineExceeded, // waits
	"DestroySandbox":                 codes.OK,               // has no fields; last in the test

	"CreateContainer": codes.InvalidArgument,
	"StartContainer":  codes.InvalidArgument,
	"RemoveContainer": codes.InvalidArgument,
	"UpdateContainer": codes.InvalidArgument,
	"StatsContainer":  codes.InvalidArgument,
	"PauseContainer":  codes.InvalidArgument,
	"ResumeContainer": codes.InvalidArgument,
	"ExecProcess":     codes.InvalidArgument,
	"SignalProcess":   codes.InvalidArgument,
	"WaitProcess":     codes.InvalidArgument,
	"WriteStdin":      codes.InvalidArgument,
	"ReadStdout":      codes.InvalidArgument,
	"ReadStderr":      codes.InvalidArgument,
	"CloseStdin":      codes.InvalidArgument,
	"TtyWinResize":    codes.InvalidArgument,
	"CopyFile":        codes.InvalidArgument,
	"SetPolicy":       codes.FailedPrecondition,

	"UpdateEphemeralMounts": codes.OK, // of nothing
	"GetDiagnosticData":     codes.InvalidArgument,
	"GetVolumeStats":        codes.InvalidArgument,
	"ResizeVolume":          codes.InvalidArgument,
	"GetIPTables":           codes.OK,
	"SetIPTables":           codes.PermissionDenied, // no policy allows it by name
	"OnlineCPUMem":          codes.OK,
	"MemHotplugByProbe":     codes.PermissionDenied,
	"ReseedRandomDev":       codes.OK,
	"SetGuestDateTime":      codes.PermissionDenied,
	"AddSwap":               codes.PermissionDenied,
	"AddSwapPath":           codes.PermissionDenied,
	"AddARPNeighbors":       codes.Unavailable, // this agent has no network
	"ListInterfaces":        codes.Unavailable,
	"ListRoutes":            codes.Unavailable,
	"UpdateInterface":       codes.Unavailable,
	"UpdateRoutes":          codes.Unavailable,
}

func TestEmptyRequests(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	p.run("app1", "/bin/sleep", "1000")
	call := func(method string) {
		ctx := t.Context()
		if method == "GetOOMEvent" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
		}
		err := callEmpty(ctx, p, method)
		want, listed := emptyRequests[method]
		if !listed {
			want = codes.Unimplemented
		}
		if method == "GetOOMEvent" && errors.Is(err, context.DeadlineExceeded) {
			return // the client's own word for it
		}
		if got := status.Code(err); got != want {
			t.Errorf("%s: %v, want %v", method, err, want)
		}
	}
	methods := agent.File_agent_agent_proto.Services().ByName("AgentService").Methods()
	for i := range methods.Len() {
		if name := string(methods.Get(i).Name()); name != "DestroySandbox" {
			call(name)
		}
	}
	p.exec("app1", "after", "/bin/echo", "alive")
	if got := p.output("app1", "after"); got != "alive\n" {
		t.Errorf("afterwards the container says %q", got)
	}
	call("DestroySandbox")
}

// Requests that name a real container but lack a part, or have an empty one.
// Not parallel: it counts goroutines and descriptors.
func TestMalformedRequests(t *testing.T) {
	p := newSandbox(t)
	p.run("app1", "/bin/cat")
	attempt := func() {
		for name, err := range malformed(t.Context(), p) {
			if code := status.Code(err); code == codes.OK || code == codes.Unknown {
				t.Errorf("%s: %v", name, err)
			} else if status.Convert(err).Message() == status.Convert(panicError()).Message() {
				t.Errorf("%s: the call panicked", name)
			}
		}
	}
	attempt() // what is made once is made
	fds, goroutines, mounts := openFiles(t), runtime.NumGoroutine(), mountsUnder(t, p.dir)
	attempt()
	if n := openFiles(t); n > fds {
		t.Errorf("%d open files became %d", fds, n)
	}
	if n := settledGoroutines(t, goroutines); n > goroutines {
		t.Errorf("%d goroutines became %d", goroutines, n)
	}
	if left := mountsUnder(t, p.dir); !slices.Equal(left, mounts) {
		t.Errorf("mounts %v became %v", mounts, left)
	}
	p.exec("app1", "after", "/bin/echo", "alive")
	if got := p.output("app1", "after"); got != "alive\n" {
		t.Errorf("afterwards the container says %q", got)
	}
}

// malformed sends each request and returns the answers.
func malformed(ctx context.Context, p *pod) map[string]error {
	c, answers := p.client, map[string]error{}
	changes := map[string]func(*agent.CreateContainerRequest){
		"no spec":               func(r *agent.CreateContainerRequest) { r.OCI = nil },
		"empty spec":            func(r *agent.CreateContainerRequest) { r.OCI = &agent.Spec{} },
		"no process":            func(r *agent.CreateContainerRequest) { r.OCI.Process = nil },
		"empty process":         func(r *agent.CreateContainerRequest) { r.OCI.Process = &agent.Process{} },
		"no root":               func(r *agent.CreateContainerRequest) { r.OCI.Root = nil },
		"empty root":            func(r *agent.CreateContainerRequest) { r.OCI.Root = &agent.Root{} },
		"no linux":              func(r *agent.CreateContainerRequest) { r.OCI.Linux = nil },
		"empty mount":           func(r *agent.CreateContainerRequest) { r.OCI.Mounts = []*agent.Mount{{}} },
		"empty namespace":       func(r *agent.CreateContainerRequest) { r.OCI.Linux.Namespaces = []*agent.LinuxNamespace{{}} },
		"empty device of linux": func(r *agent.CreateContainerRequest) { r.OCI.Linux.Devices = []*agent.LinuxDevice{{}} },
		"empty mapping": func(r *agent.CreateContainerRequest) {
			r.OCI.Linux.Namespaces = []*agent.LinuxNamespace{{Type: "user"}}
			r.OCI.Linux.UIDMappings = []*agent.LinuxIDMapping{{}}
		},
		"empty resource limit": func(r *agent.CreateContainerRequest) { r.OCI.Process.Rlimits = []*agent.POSIXRlimit{{}} },
		"empty seccomp rule": func(r *agent.CreateContainerRequest) {
			r.OCI.Linux.Seccomp = &agent.LinuxSeccomp{Syscalls: []*agent.LinuxSyscall{{}}}
		},
		"empty hook":              func(r *agent.CreateContainerRequest) { r.OCI.Hooks = &agent.Hooks{Prestart: []*agent.Hook{{}}} },
		"empty windows":           func(r *agent.CreateContainerRequest) { r.OCI.Windows = &agent.Windows{} },
		"empty storage":           func(r *agent.CreateContainerRequest) { r.Storages = []*agent.Storage{{}} },
		"empty device":            func(r *agent.CreateContainerRequest) { r.Devices = []*agent.Device{{}} },
		"empty shared mount":      func(r *agent.CreateContainerRequest) { r.SharedMounts = []*agent.SharedMount{{}} },
		"empty id":                func(r *agent.CreateContainerRequest) { r.ContainerId = "" },
		"id of another container": func(r *agent.CreateContainerRequest) { r.ContainerId = "app1" },
	}
	for name, change := range changes {
		req := p.request("app2", "/bin/sleep", "1000")
		change(req)
		_, answers["create: "+name] = c.CreateContainer(ctx, req)
	}
	_, answers["exec: no process"] = c.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x"})
	_, answers["exec: empty process"] = c.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x", Process: &agent.Process{}})
	_, answers["exec: no user, no program"] = c.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x", Process: &agent.Process{Args: []string{""}}})
	_, answers["exec: empty id"] = c.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: "app1", Process: &agent.Process{Args: []string{"/bin/echo"}}})
	_, answers["update: no limits"] = c.UpdateContainer(ctx, &agent.UpdateContainerRequest{ContainerId: "app1"})
	_, answers["signal: number out of range"] = c.SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: "app1", Signal: 65})
	_, answers["signal: unknown process"] = c.SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: "app1", ExecId: "nobody", Signal: 9})
	_, answers["wait: unknown process"] = c.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: "app1", ExecId: "nobody"})
	_, answers["read: no bytes"] = c.ReadStdout(ctx, &agent.ReadStreamRequest{ContainerId: "app1"})
	_, answers["write: unknown process"] = c.WriteStdin(ctx, &agent.WriteStreamRequest{ContainerId: "app1", ExecId: "nobody"})
	_, answers["close: unknown process"] = c.CloseStdin(ctx, &agent.CloseStdinRequest{ContainerId: "app1", ExecId: "nobody"})
	_, answers["resize: no terminal"] = c.TtyWinResize(ctx, &agent.TtyWinResizeRequest{ContainerId: "app1"})
	_, answers["copy: only a path"] = c.CopyFile(ctx, &agent.CopyFileRequest{Path: sandbox.GuestDir + "/shared/containers/x"})
	_, answers["copy: empty link"] = c.CopyFile(ctx, &agent.CopyFileRequest{Path: sandbox.GuestDir + "/shared/containers/x", FileMode: unix.S_IFLNK})
	return answers
}

// An empty storage is refused before there is a sandbox too, and leaves none.
func TestSandboxWithEmptyStorage(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{Storages: []*agent.Storage{{}}})
	wantCode(t, err, codes.InvalidArgument)
	if left := mountsUnder(t, p.dir); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	if _, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{}); err != nil {
		t.Errorf("again: %v", err)
	}
}

// variants calls visit after each change that leaves out or empties one part of
// the message that root holds, at any depth, and puts the part back.
func variants(m protoreflect.Message, at string, visit func(change string)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		d := fields.Get(i)
		if !m.Has(d) || d.Message() == nil || d.IsMap() {
			continue
		}
		here, old := at+"."+string(d.Name()), m.Get(d)
		if d.IsList() {
			list := old.List()
			for j := range list.Len() {
				full := list.Get(j)
				variants(full.Message(), fmt.Sprintf("%s[%d]", here, j), visit)
				list.Set(j, list.NewElement())
				visit(here + ": an empty element")
				list.Set(j, full)
			}
			continue
		}
		variants(old.Message(), here, visit)
		m.Set(d, m.NewField(d))
		visit(here + ": empty")
		m.Clear(d)
		visit(here + ": absent")
		m.Set(d, old)
	}
}

// A spec may lack any part without harm; without one of three, or with a mount
// of no type, it is refused.
func TestSpecWithoutParts(t *testing.T) {
	in := &agent.Spec{}
	(&filler{values: map[string]string{}}).fill(in.ProtoReflect())
	in.Hooks, in.Solaris, in.Windows, in.Linux.Namespaces = nil, nil, nil, nil
	in.Mounts[0].Type = "bind"
	n := 0
	variants(in.ProtoReflect(), "", func(change string) {
		n++
		out, err := runtimeSpec(in, place{root: "/r", source: func(s string) (string, error) { return s, nil }})
		needed := slices.Contains([]string{".Process: absent", ".Root: absent", ".Linux: absent", ".Mounts: an empty element"}, change)
		if (err != nil) != needed {
			t.Errorf("%s: %v", change, err)
		}
		if err == nil && (out.Process == nil || out.Linux == nil || out.Linux.Resources == nil || out.Root.Path != "/r") {
			t.Errorf("%s: became %+v", change, out)
		}
	})
	if n < 30 {
		t.Errorf("only %d changes were tried", n)
	}
	if _, err := runtimeSpec(nil, place{}); err == nil || !strings.Contains(err.Error(), "lacks") {
		t.Errorf("no spec: %v", err)
	}
}
