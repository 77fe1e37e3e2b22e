package kata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// images is a registry of one image, or of a refusal.
type images struct {
	t      *testing.T
	refuse error

	mu       sync.Mutex
	mounted  map[string]bool
	released int
}

func (i *images) PullImage(_ context.Context, ref, bundle string) (sandbox.Image, error) {
	if i.refuse != nil {
		return sandbox.Image{}, i.refuse
	}
	root := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return sandbox.Image{}, err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
		return sandbox.Image{}, err
	}
	fillRootfs(i.t, root)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mounted == nil {
		i.mounted = map[string]bool{}
	}
	i.mounted[bundle] = true
	return sandbox.Image{Digest: "sha256:" + strings.Repeat("0", 64), Rootfs: root}, nil
}

func (i *images) ReleaseImage(_ context.Context, bundle string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.mounted[bundle] {
		return fmt.Errorf("nothing mounted at %s", bundle)
	}
	delete(i.mounted, bundle)
	i.released++
	root := filepath.Join(bundle, "rootfs")
	if err := unix.Unmount(root, 0); err != nil {
		return err
	}
	return os.Remove(root)
}

func pullRequest(p *pod, id string, args ...string) *agent.CreateContainerRequest {
	req := p.request(id, args...)
	req.OCI.Root.Path = "/somewhere/else" // overridden: the pulled image is the root
	req.Storages = []*agent.Storage{{
		Driver: "image_guest_pull", Source: "registry.example/app:1", Fstype: "overlay",
		MountPoint: sandbox.GuestDir + "/" + id + "/rootfs",
	}}
	return req
}

func TestGuestPull(t *testing.T) {
	t.Parallel()
	reg := &images{t: t}
	p := newSandbox(t, func(c *Config) { c.Images = reg })
	p.create(pullRequest(p, "app1", "/bin/sh", "-c", "echo from the image"))
	p.start("app1")
	if got := p.output("app1", ""); got != "from the image\n" {
		t.Errorf("%q", got)
	}
	p.remove("app1")
	if reg.released != 1 {
		t.Errorf("released %d times", reg.released)
	}
	// A container that cannot be created gives its image back.
	_, err := p.client.CreateContainer(t.Context(), pullRequest(p, "app2", "/bin/nope"))
	if err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("a missing program: %v", err)
	}
	if len(reg.mounted) != 0 || reg.released != 2 {
		t.Errorf("after a failed creation: mounted %v, released %d", reg.mounted, reg.released)
	}
}

// The host sees code and ticket of a refusal, in the words it knows, and never
// the cause.
func TestImageRefusals(t *testing.T) {
	t.Parallel()
	reg := &images{t: t}
	p := newSandbox(t, func(c *Config) { c.Images = reg })
	tests := []struct {
		code fault.Code
		want codes.Code
		text string
	}{
		{fault.ImageUnsigned, codes.PermissionDenied, "Image policy rejected: Denied by policy: image_signature_rejected (ticket 7QK2-M9TD)"},
		{fault.ImagePolicyMissing, codes.PermissionDenied, "Image policy rejected: Denied by policy: image_policy_missing (ticket 7QK2-M9TD)"},
		{fault.ImageKey, codes.PermissionDenied, "Failed to decrypt the image layer, please ensure that the decryption key is placed and correct: image_key_refused (ticket 7QK2-M9TD)"},
		{fault.ImageCorrupt, codes.PermissionDenied, "image_layer_corrupt (ticket 7QK2-M9TD)"},
		{fault.PolicyDenied, codes.PermissionDenied, "policy_denied (ticket 7QK2-M9TD)"},
		{fault.ImageUnavailable, codes.Unavailable, "image_unavailable (ticket 7QK2-M9TD)"},
		{fault.TooLarge, codes.ResourceExhausted, "too_large (ticket 7QK2-M9TD)"},
		{fault.Internal, codes.Internal, "internal (ticket 7QK2-M9TD)"},
	}
	for _, tt := range tests {
		reg.refuse = fault.New(tt.code, errors.New("the private cause")).With("7QK2-M9TD")
		_, err := p.client.CreateContainer(t.Context(), pullRequest(p, "app1", "/bin/sh"))
		wantCode(t, err, tt.want)
		if got := status.Convert(err).Message(); got != tt.text {
			t.Errorf("%s: text %q, want %q", tt.code, got, tt.text)
		}
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for _, e := range fault.Table() {
		if got := faultCode(e.Code); got == codes.OK || (got == codes.Internal) != (e.Status == 500) {
			t.Errorf("%s (HTTP %d) becomes %v", e.Code, e.Status, got)
		}
	}
}

func TestRefusedCreations(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	ephemeral := &agent.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: sandbox.GuestDir + "/sandbox/ephemeral/mem"}
	tests := []struct {
		name   string
		change func(*agent.CreateContainerRequest)
		want   codes.Code
		text   string
	}{
		{"id with a slash", func(r *agent.CreateContainerRequest) { r.ContainerId = "a/b" }, codes.InvalidArgument, "invalid container id"},
		{"id of dots", func(r *agent.CreateContainerRequest) { r.ContainerId = ".." }, codes.InvalidArgument, "invalid container id"},
		{"id empty", func(r *agent.CreateContainerRequest) { r.ContainerId = "" }, codes.InvalidArgument, "invalid container id"},
		{"id with a newline", func(r *agent.CreateContainerRequest) { r.ContainerId = "ab\n" }, codes.InvalidArgument, "invalid container id"},
		{"id that is too long", func(r *agent.CreateContainerRequest) { r.ContainerId = strings.Repeat("a", 300) }, codes.InvalidArgument, "invalid container id"},
		{"id of a directory of ours", func(r *agent.CreateContainerRequest) { r.ContainerId = "runtime" }, codes.InvalidArgument, "invalid container id"},
		{"no spec", func(r *agent.CreateContainerRequest) { r.OCI = nil }, codes.InvalidArgument, "not below"},
		{"no process", func(r *agent.CreateContainerRequest) { r.OCI.Process = nil }, codes.InvalidArgument, "lacks"},
		{"hooks", func(r *agent.CreateContainerRequest) {
			r.OCI.Hooks = &agent.Hooks{Poststop: []*agent.Hook{{Path: "/bin/sh"}}}
		}, codes.InvalidArgument, "hooks"},
		{"windows", func(r *agent.CreateContainerRequest) { r.OCI.Windows = &agent.Windows{} }, codes.InvalidArgument, "another system"},
		{"devices", func(r *agent.CreateContainerRequest) {
			r.Devices = []*agent.Device{{Type: "blk", ContainerPath: "/dev/x"}}
		}, codes.InvalidArgument, "devices"},
		{"ports", func(r *agent.CreateContainerRequest) { r.StdoutPort = 5 }, codes.InvalidArgument, "ports"},
		{"user by name", func(r *agent.CreateContainerRequest) { r.StringUser = &agent.StringUser{Uid: "root"} }, codes.InvalidArgument, "users by name"},
		{"shared mounts", func(r *agent.CreateContainerRequest) { r.SharedMounts = []*agent.SharedMount{{}} }, codes.InvalidArgument, "shared"},
		{"root outside", func(r *agent.CreateContainerRequest) { r.OCI.Root.Path = "/" }, codes.InvalidArgument, "not below"},
		{"root by dots", func(r *agent.CreateContainerRequest) { r.OCI.Root.Path = sandbox.GuestDir + "/../../" }, codes.InvalidArgument, "not below"},
		{"the guest's root as a mount", withMount("/", "bind"), codes.InvalidArgument, "not below"},
		{"the guest's files as a mount", withMount("/etc", "none", "ro", "rbind"), codes.InvalidArgument, "not below"},
		{"the runtime's state as a mount", withMount(sandbox.GuestDir+"/runtime", "bind"), codes.InvalidArgument, "not below"},
		{"another's bundle as a mount", withMount(sandbox.GuestDir+"/other/rootfs", "local"), codes.InvalidArgument, "not below"},
		{"a relative mount", withMount("shared/containers", "bind"), codes.InvalidArgument, "not below"},
		{"an absent mount", withMount(sandbox.GuestDir+"/shared/containers/nothing", "bind"), codes.InvalidArgument, "cannot be used"},
		{"a disk as a mount", withMount("/dev/vda", "ext4"), codes.InvalidArgument, "not supported"},
		{"mount namespace of another", func(r *agent.CreateContainerRequest) {
			r.OCI.Linux.Namespaces = []*agent.LinuxNamespace{{Type: "user", Path: "/proc/1/ns/user"}}
		}, codes.InvalidArgument, "joined"},
		{"unknown namespace", func(r *agent.CreateContainerRequest) {
			r.OCI.Linux.Namespaces = []*agent.LinuxNamespace{{Type: "soul"}}
		}, codes.InvalidArgument, "not supported"},
		{"the root cgroup", func(r *agent.CreateContainerRequest) { r.OCI.Linux.CgroupsPath = "a/../.." }, codes.InvalidArgument, "leads to the root"},
		{"unknown driver", func(r *agent.CreateContainerRequest) {
			r.Storages = []*agent.Storage{ephemeral, {Driver: "9p", Source: "tag", MountPoint: sandbox.GuestDir + "/x"}}
		}, codes.InvalidArgument, `storage driver "9p" is not supported`},
		{"storage outside", func(r *agent.CreateContainerRequest) {
			r.Storages = []*agent.Storage{ephemeral, {Driver: "local", MountPoint: "/etc/x"}}
		}, codes.InvalidArgument, "not below"},
		{"image in another's root", func(r *agent.CreateContainerRequest) {
			r.Storages = []*agent.Storage{{Driver: "image_guest_pull", Source: "x", MountPoint: sandbox.GuestDir + "/other/rootfs"}}
		}, codes.InvalidArgument, "root of its own container"},
	}
	before := mountsUnder(t, p.dir)
	for _, tt := range tests {
		req := p.request("app1", "/bin/sh")
		tt.change(req)
		_, err := p.client.CreateContainer(t.Context(), req)
		wantCode(t, err, tt.want)
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.text)
		}
		if after := mountsUnder(t, p.dir); !slices.Equal(before, after) {
			t.Errorf("%s: mounts %v became %v", tt.name, before, after)
		}
		if entries, _ := filepath.Glob(p.dir + "/app1*"); len(entries) > 0 {
			t.Errorf("%s: left %v", tt.name, entries)
		}
	}
}

func TestOrderOfCalls(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	ctx := t.Context()
	if resp, err := p.health.Check(ctx, &agent.CheckRequest{}); err != nil || resp.Status != agent.HealthCheckResponse_SERVING {
		t.Errorf("check: %v, %v", resp, err)
	}
	if resp, err := p.health.Version(ctx, &agent.CheckRequest{}); err != nil || resp.GrpcVersion != "0.0.1" || resp.AgentVersion != "test" {
		t.Errorf("version: %v, %v", resp, err)
	}
	_, err := p.client.CreateContainer(ctx, p.request("app1", "/bin/sh"))
	wantCode(t, err, codes.FailedPrecondition)
	_, err = p.client.CreateSandbox(ctx, &agent.CreateSandboxRequest{GuestHookPath: "/hooks"})
	wantCode(t, err, codes.PermissionDenied)
	_, err = p.client.CreateSandbox(ctx, &agent.CreateSandboxRequest{KernelModules: []*agent.KernelModule{{Name: "x"}}})
	wantCode(t, err, codes.PermissionDenied)
	// A sandbox that fails leaves nothing, and may be tried again.
	_, err = p.client.CreateSandbox(ctx, &agent.CreateSandboxRequest{Hostname: "h", Storages: []*agent.Storage{{Driver: "9p", MountPoint: sandbox.GuestDir + "/x"}}})
	wantCode(t, err, codes.InvalidArgument)
	if left := mountsUnder(t, p.dir); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	if _, err = p.client.CreateSandbox(ctx, &agent.CreateSandboxRequest{}); err != nil {
		t.Fatal(err)
	}
	_, err = p.client.CreateSandbox(ctx, &agent.CreateSandboxRequest{})
	wantCode(t, err, codes.AlreadyExists)
	details, err := p.client.GetGuestDetails(ctx, &agent.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	if err != nil || details.AgentDetails.Version != "test" || !slices.Contains(details.AgentDetails.StorageHandlers, "image_guest_pull") || !details.AgentDetails.SupportsSeccomp {
		t.Errorf("details: %v, %v", details, err)
	}
	oom := make(chan error, 1)
	go func() {
		_, err := p.client.GetOOMEvent(context.Background(), &agent.GetOOMEventRequest{})
		oom <- err
	}()
	req := p.request("app1", "/bin/sleep", "1000")
	req.OCI.Mounts = req.OCI.Mounts[:3] // this sandbox has no shm
	p.create(req)
	p.start("app1")
	waiting := make(chan int, 1)
	go func() { waiting <- p.wait("app1", "") }()
	if _, err := p.client.DestroySandbox(ctx, &agent.DestroySandboxRequest{}); err != nil {
		t.Fatal(err)
	}
	<-p.server.Done()
	if got := <-waiting; got != 137 {
		t.Errorf("status %d", got)
	}
	if err := <-oom; err == nil || !strings.Contains(err.Error(), "Dead agent") {
		t.Errorf("out-of-memory events end with %v", err)
	}
	_, err = p.client.CreateContainer(ctx, p.request("app2", "/bin/sh"))
	wantCode(t, err, codes.FailedPrecondition)
	if left := mountsUnder(t, p.dir); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
}

// Every method of the service answers; those for which this agent was given
// nothing say so.
func TestAbsentMethods(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	absentMethods := []string{"GetMetrics", "MemAgentCompactSet", "MemAgentMemcgSet"}
	service := agent.File_agent_agent_proto.Services().ByName("AgentService")
	var got []string
	for i := range service.Methods().Len() {
		name := string(service.Methods().Get(i).Name())
		if name == "GetOOMEvent" || name == "DestroySandbox" || name == "CreateSandbox" {
			continue // wait or act on an empty request
		}
		err := callEmpty(t.Context(), p, name)
		if status.Code(err) == codes.Unimplemented {
			got = append(got, name)
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, absentMethods) {
		t.Errorf("absent methods\n%v, want\n%v", got, absentMethods)
	}
}

func callEmpty(ctx context.Context, p *pod, method string) error {
	return p.raw.Call(ctx, "grpc.AgentService", method, &emptypb.Empty{}, &emptypb.Empty{})
}

// A bug in one call must not end the agent, nor tell the host where it is.
func TestPanicsAreCaught(t *testing.T) {
	s := &Server{log: slog.New(slog.DiscardHandler), ready: func(context.Context) error { return nil }}
	err := s.around(t.Context(), &playedCall{method: "/grpc.AgentService/X", request: &agent.CheckRequest{}, do: func() error { panic("the secret is 42") }})
	wantCode(t, err, codes.Internal)
	if strings.Contains(err.Error(), "42") {
		t.Errorf("the host sees %v", err)
	}
}

// withMount adds a mount to a request.
func withMount(source, fstype string, options ...string) func(*agent.CreateContainerRequest) {
	return func(r *agent.CreateContainerRequest) {
		r.OCI.Mounts = append(r.OCI.Mounts, &agent.Mount{Destination: "/mnt", Source: source, Type: fstype, Options: options})
	}
}

// A link that the host copies in leads nowhere outside.
func TestMountThroughALink(t *testing.T) {
	p := newSandbox(t)
	if _, err := p.client.CopyFile(t.Context(), &agent.CopyFileRequest{
		Path: sandbox.GuestDir + "/shared/containers/link", FileMode: unix.S_IFLNK | 0o777, DirMode: 0o755, Data: []byte("../../runtime"),
	}); err != nil {
		t.Fatal(err)
	}
	req := p.request("app1", "/bin/sh")
	withMount(sandbox.GuestDir+"/shared/containers/link", "bind")(req)
	_, err := p.client.CreateContainer(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument)
}

// Without a policy over requests, and without a measured word that none is
// wanted, the host can run nothing.
func TestNoAgentPolicyMeansNo(t *testing.T) {
	p := newSandbox(t, func(c *Config) { c.UnsafeNoPolicy = false })
	_, err := p.client.CreateContainer(t.Context(), p.request("app1", "/bin/sh"))
	wantCode(t, err, codes.PermissionDenied)
	if !strings.Contains(fmt.Sprint(err), "CreateContainerRequest is blocked by policy") {
		t.Error(err)
	}
	_, err = p.client.ExecProcess(t.Context(), &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x", Process: &agent.Process{Args: []string{"/bin/sh"}}})
	wantCode(t, err, codes.PermissionDenied)
	if !strings.Contains(fmt.Sprint(err), "ExecProcessRequest is blocked by policy") {
		t.Error(err)
	}
}
