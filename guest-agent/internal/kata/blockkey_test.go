package kata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// needsRuntime skips where an OCI runtime is not there, or runs nothing.
func needsRuntime(t *testing.T, runtime string) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot+"/unified", &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && runtime == "crun" {
		t.Skip("crun takes no hybrid layout of cgroups")
	}
	if _, err := exec.LookPath(runtime); err != nil {
		t.Skipf("needs %s", runtime)
	}
}

// opener stands in for what opens volumes: it shows another disk.
type opener struct {
	clear  string
	opened []string
	keys   []sandbox.Key
}

var errOpener = errors.New("nothing is mounted here")

func (*opener) MountOn(context.Context, string, *os.File) (string, error) { return "", errOpener }

func (*opener) MountKey(context.Context, string, sandbox.Key, sandbox.Mount, *os.File) (string, error) {
	return "", errOpener
}

func (o *opener) OpenKey(_ context.Context, node string, key sandbox.Key, link string) error {
	o.opened, o.keys = append(o.opened, node), append(o.keys, key)
	return os.Symlink(o.clear, link)
}

func (*opener) Unmount(_ context.Context, path string) error { return os.Remove(path) }

// A container has the device that shows its encrypted volume in the clear, by that
// device's number, and no other right than to it. The disk itself it has not.
func TestKeyedDevice(t *testing.T) {
	t.Parallel()
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			needsRuntime(t, runtime)
			disk, shown := newDisk(t, "ciphertext"), newDisk(t, "hello")
			o := &opener{clear: shown.Path}
			p := newSandbox(t, underPolicy(t, nil, ordinary+"CreateContainerRequest := true\nRemoveContainerRequest := true\nReadStreamRequest := true\n"+
				`device_keys[d.container_path] := {"key": "kbs:///a/b/c", "format": true} if some d in input.devices`),
				func(c *Config) {
					c.Runtime, c.Devices, c.Encrypted = runtime, disks{"02/00": disk}, o
				})
			link := filepath.Join(p.dir, "volumes", "device-"+disk.Name)
			for _, id := range []string{"app1", "app2"} { // both at once
				req := withDevice(p, id, "02/00")
				req.OCI.Process.Args = []string{"/bin/sh", "-c", "head -c 5 /dev/xvdz; /bin/busybox stat -c :%t:%T /dev/xvdz"}
				p.create(req)
			}
			for _, id := range []string{"app1", "app2"} {
				p.start(id)
				if got, want := p.output(id, ""), fmt.Sprintf("hello:%x:%x\n", shown.Major, shown.Minor); got != want {
					t.Errorf("%s says %q, want %q; %s", id, got, want, p.readAll(p.client.ReadStderr, id, ""))
				}
			}
			if len(o.opened) != 1 || o.opened[0] != disk.Path || o.keys[0] != (sandbox.Key{Location: "kbs:///a/b/c", Format: true}) {
				t.Errorf("opened %v with %v", o.opened, o.keys)
			}
			p.remove("app1")
			if _, err := os.Lstat(link); err != nil {
				t.Error("it is closed while a container has it:", err)
			}
			p.remove("app2")
			if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
				t.Error("it is left open:", err)
			}
		})
	}
}

// What cannot be opened is not given, nor the disk in its place.
func TestKeyedDeviceRefused(t *testing.T) {
	t.Parallel()
	found := disks{"02/00": newDisk(t, "x"), "03": newDisk(t, "y")}
	const key = `{"key": "kbs:///a/b/c"}`
	for name, c := range map[string]struct {
		rule   string
		opener sandbox.Encrypted
		change func(*agent.CreateContainerRequest)
		want   codes.Code
	}{
		"no disk":         {`device_keys["/dev/other"] := ` + key, &opener{}, nil, codes.InvalidArgument},
		"for images":      {`device_keys["` + trustedPath + `"] := ` + key, &opener{}, nil, codes.InvalidArgument},
		"nothing opens":   {`device_keys["/dev/xvdz"] := ` + key, nil, nil, codes.InvalidArgument},
		"no key":          {`device_keys["/dev/xvdz"] := {"format": true}`, &opener{}, nil, codes.PermissionDenied},
		"no block device": {`device_keys["/dev/xvdz"] := ` + key, &opener{clear: "/dev/null"}, nil, codes.Internal},
		"two disks at the path": {`device_keys["/dev/xvdz"] := ` + key, &opener{clear: "/dev/null"}, func(r *agent.CreateContainerRequest) {
			r.Devices = append(r.Devices, &agent.Device{Type: "blk", Id: "03", ContainerPath: "/dev/xvdz"})
		}, codes.InvalidArgument},
	} {
		p := newSandbox(t, underPolicy(t, nil, ordinary+"CreateContainerRequest := true\n"+c.rule), func(cfg *Config) { cfg.Devices, cfg.Encrypted = found, c.opener })
		req := withDevice(p, "app1", "02/00")
		if c.change != nil {
			c.change(req)
		}
		_, err := p.client.CreateContainer(t.Context(), req)
		t.Log(name, err)
		wantCode(t, err, c.want)
		if left, _ := filepath.Glob(filepath.Join(p.dir, "volumes", "*")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	for _, b := range found {
		if err := device.Block.Unused(b); err != nil {
			t.Error(err)
		}
	}
}
