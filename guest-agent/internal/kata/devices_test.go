package kata

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// disks are the guest's disks by address, made of loop devices.
type disks map[string]device.Block

func (d disks) Find(_ context.Context, a device.Address) (device.Block, error) {
	if b, ok := d[a.String()]; ok {
		return b, nil
	}
	return device.Block{}, device.ErrTimeout
}

func (d disks) Partition(context.Context, device.Block, int) (device.Block, error) {
	return device.Block{}, device.ErrTimeout
}

// FindFunction finds one that has the address 0000:01:00.0, whatever it was.
func (d disks) FindFunction(_ context.Context, f device.Function) (string, error) {
	if _, ok := d[f.Host]; ok {
		return "0000:01:00.0", nil
	}
	return "", device.ErrTimeout
}

// newDisk returns a disk that holds text.
func newDisk(t *testing.T, text string) device.Block {
	t.Helper()
	needs(t)
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, append([]byte(text), make([]byte, 1<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("no loop device can be had: %v", err)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", node).Run() })
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	return device.Block{Name: filepath.Base(node), Path: node, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
}

// withDevice is a container that reads a disk which the host plugged in, with the
// numbers that it has on the host.
func withDevice(p *pod, id, source string) *agent.CreateContainerRequest {
	req := p.request(id, "/bin/head", "-c", "5", "/dev/xvdz")
	req.OCI.Linux.Devices = []*agent.LinuxDevice{{Path: "/dev/xvdz", Type: "b", Major: 253, Minor: 99, FileMode: 0o600}}
	req.OCI.Linux.Resources.Devices = []*agent.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: 253, Minor: 99, Access: "r"}}
	req.Devices = []*agent.Device{{Type: "blk", Id: source, ContainerPath: "/dev/xvdz"}}
	return req
}

// A container reads the disk by its number in the guest.
func TestDevices(t *testing.T) {
	t.Parallel()
	p := newSandbox(t, func(c *Config) { c.Devices = disks{"02/00": newDisk(t, "hello")} })
	p.create(withDevice(p, "app1", "02/00"))
	p.start("app1")
	if got := p.output("app1", ""); got != "hello" {
		t.Errorf("the disk says %q; %s", got, p.readAll(p.client.ReadStderr, "app1", ""))
	}
	p.remove("app1")
}

func passedDevice(options ...string) []*agent.Device {
	return []*agent.Device{{Type: device.Passed, ContainerPath: "/dev/vfio/12", Options: options}}
}

// A process learns the addresses that functions have in the guest.
func TestPassedFunction(t *testing.T) {
	t.Parallel()
	p := newSandbox(t, func(c *Config) { c.Devices = disks{"0000:3b:00.0": {}} })
	req := p.request("app1", "/bin/sh", "-c", "echo -n $PCIDEVICE_GPU $PCIDEVICE_GPU_INFO")
	req.Devices = passedDevice("0000:3b:00.0=02/00")
	req.OCI.Process.Env = append(req.OCI.Process.Env, "PCIDEVICE_GPU=0000:3b:00.0", "PCIDEVICE_GPU_INFO={}")
	p.create(req)
	p.start("app1")
	if got := p.output("app1", ""); got != "0000:01:00.0 {}" {
		t.Errorf("it says %q; %s", got, p.readAll(p.client.ReadStderr, "app1", ""))
	}
	p.remove("app1")
	req.OCI.Process.Env[1] = "PCIDEVICE_GPU=0000:3b:00.0,0000:4c:00.0"
	_, err := p.client.CreateContainer(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument)
}

func TestDevicesRefused(t *testing.T) {
	t.Parallel()
	used := newDisk(t, "the guest's own")
	held, err := os.OpenFile(used.Path, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = held.Close() })
	p := newSandbox(t, func(c *Config) { c.Devices = disks{"03": used, "02/00": newDisk(t, "x"), "0000:3b:00.0": {}} })
	for name, c := range map[string]struct {
		change func(*agent.CreateContainerRequest)
		want   codes.Code
	}{
		"one that the guest uses":     {func(r *agent.CreateContainerRequest) { r.Devices[0].Id = "03" }, codes.FailedPrecondition},
		"one that is not there":       {func(r *agent.CreateContainerRequest) { r.Devices[0].Id = "04" }, codes.DeadlineExceeded},
		"a file":                      {func(r *agent.CreateContainerRequest) { r.Devices[0].Id, r.Devices[0].VmPath = "", "/etc/passwd" }, codes.InvalidArgument},
		"memory":                      {func(r *agent.CreateContainerRequest) { r.Devices[0].Type, r.Devices[0].VmPath = "mmioblk", "/dev/mem" }, codes.InvalidArgument},
		"another kind":                {func(r *agent.CreateContainerRequest) { r.Devices[0].Type = "vfio-pci" }, codes.InvalidArgument},
		"none, but the spec's number": {func(r *agent.CreateContainerRequest) { r.Devices = nil }, codes.InvalidArgument},
		"a path twice":                {func(r *agent.CreateContainerRequest) { r.Devices = append(r.Devices, r.Devices[0]) }, codes.InvalidArgument},
		"one not in the spec":         {func(r *agent.CreateContainerRequest) { r.Devices[0].ContainerPath = "/dev/other" }, codes.InvalidArgument},
		"in the spec no disk":         {func(r *agent.CreateContainerRequest) { r.OCI.Linux.Devices[0].Type = "c" }, codes.InvalidArgument},
		"a function of nowhere":       {func(r *agent.CreateContainerRequest) { r.Devices = passedDevice("0000:4c:00.0=02/00") }, codes.DeadlineExceeded},
		"a function twice": {func(r *agent.CreateContainerRequest) {
			r.Devices = passedDevice("0000:3b:00.0=02/00", "0000:3b:00.0=02/00")
		}, codes.InvalidArgument},
		"no function":       {func(r *agent.CreateContainerRequest) { r.Devices = passedDevice() }, codes.InvalidArgument},
		"a function's path": {func(r *agent.CreateContainerRequest) { r.Devices = passedDevice("0000:3b:00.0=/etc") }, codes.InvalidArgument},
		"a device of s390x": {func(r *agent.CreateContainerRequest) { r.Devices[0].Type = "vfio-ap" }, codes.InvalidArgument},
		"a disk of s390x":   {func(r *agent.CreateContainerRequest) { r.Devices[0].Type = "blk-ccw" }, codes.InvalidArgument},
		"a disk beside a function": {func(r *agent.CreateContainerRequest) {
			r.Devices[0].Id = "04"
			r.Devices = append(passedDevice("0000:3b:00.0=02/00"), r.Devices...)
		}, codes.DeadlineExceeded},
		"by CDI": {func(r *agent.CreateContainerRequest) {
			r.OCI.Annotations = map[string]string{"cdi.k8s.io/vfio0.0": "example.com/gpu=0"}
		}, codes.InvalidArgument},
		"many":                     {func(r *agent.CreateContainerRequest) { r.Devices = make([]*agent.Device, maxDevices+1) }, codes.InvalidArgument},
		"without a spec's devices": {func(r *agent.CreateContainerRequest) { r.OCI.Linux.Devices = nil }, codes.InvalidArgument},
	} {
		req := withDevice(p, "app1", "02/00")
		c.change(req)
		_, err := p.client.CreateContainer(t.Context(), req)
		t.Log(name, err)
		wantCode(t, err, c.want)
	}
}

// The policy sees which devices a container gets.
func TestDevicesUnderPolicy(t *testing.T) {
	t.Parallel()
	p := newSandbox(t, underPolicy(t, nil, ordinary+`
		CreateContainerRequest if { input.devices[0].id == "02/00"; input.devices[0].type_ == "blk"; input.devices[0].container_path == "/dev/xvdz" }`),
		func(c *Config) { c.Devices = disks{"02/00": newDisk(t, "hello"), "03": newDisk(t, "other")} })
	p.create(withDevice(p, "app1", "02/00"))
	_, err := p.client.CreateContainer(t.Context(), withDevice(p, "app2", "03"))
	wantCode(t, err, codes.PermissionDenied)
}

// Without a policy, and without its waiver, no disk and no share of the host's is
// mounted, for any purpose.
func TestForeignStoragesNeedPermission(t *testing.T) {
	t.Parallel()
	p := newPod(t, func(c *Config) { c.UnsafeNoPolicy, c.Devices = false, disks{"02/00": newDisk(t, "x")} })
	for _, st := range []*agent.Storage{
		{Driver: "blk", Source: "02/00", Fstype: "ext4", MountPoint: "/run/kata-containers/sandbox/storage/x"},
		{Driver: "virtio-fs", Source: "kataShared", Fstype: "virtiofs", MountPoint: "/run/kata-containers/shared/containers/"},
	} {
		_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{SandboxId: "s1", Storages: []*agent.Storage{st}})
		wantCode(t, err, codes.PermissionDenied)
	}
}
