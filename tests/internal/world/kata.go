package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/containerd/ttrpc"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// Kata plays the part of the Kata runtime: it sends what the shim sends when a
// kubelet runs a pod with images pulled in the guest (kata-agent 2.1 to 2.5).
type Kata struct {
	agent.AgentServiceService
	agent.HealthService
	client *ttrpc.Client
	cgroup string // prefix of the containers' cgroups: unlike in a VM, guests share the host's
	laps   *laps
}

func dialKata(ctx context.Context, socket, cgroup string) (*Kata, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return newKata(ctx, conn, cgroup)
}

// newKata waits for the agent to answer over a connection, which it closes if
// that fails.
func newKata(ctx context.Context, conn net.Conn, cgroup string) (*Kata, error) {
	client := ttrpc.NewClient(conn)
	k := &Kata{agent.NewAgentServiceClient(client), agent.NewHealthClient(client), client, cgroup, nil}
	if _, err := k.Check(ctx, &agent.CheckRequest{}); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return k, nil
}

func (k *Kata) close() error { return k.client.Close() }

const podName = "demo-pod"

const sandboxID = "sandbox0000000000000000000000000000000000000000000000000000000000"

// Pod creates the sandbox and its pause container.
func (k *Kata) Pod(ctx context.Context) error {
	if _, err := k.CreateSandbox(ctx, &agent.CreateSandboxRequest{
		Hostname: podName, SandboxId: sandboxID,
		Storages: []*agent.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/shm",
			Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"},
		}},
	}); err != nil {
		return fmt.Errorf("CreateSandbox: %w", err)
	}
	k.laps.lap("sandbox")
	if _, err := k.GetGuestDetails(ctx, &agent.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true}); err != nil {
		return fmt.Errorf("GetGuestDetails: %w", err)
	}
	return k.Run(ctx, Container{ID: sandboxID, Image: "pause", Config: v1.Config{Entrypoint: []string{"/pause"}, WorkingDir: "/"}})
}

// Container creates and starts the container of a pod that has one, called app,
// whose image the guest pulls.
func (k *Kata) Container(ctx context.Context, id, image string, config v1.Config) error {
	return k.Run(ctx, Container{ID: id, Name: "app", Image: image, Config: config})
}

// Container is one container as the runtime asks for it.
type Container struct {
	ID, Name string // Name is its own in the pod; empty for the pause container
	Image    string
	Config   v1.Config
	// Disks are disks of the host's that are emptyDir volumes of the pod, by where
	// the container has them: PCI paths.
	Disks map[string]string
	// Volumes are such disks that are its persistent volumes.
	Volumes map[string]string
	// Store is the PCI path of a disk that the container brings for images; empty
	// for none.
	Store string
}

// Run creates and starts a container.
func (k *Kata) Run(ctx context.Context, c Container) error {
	annotations := map[string]string{
		"io.kubernetes.cri.container-type": "container",
		"io.kubernetes.cri.image-name":     c.Image,
		"io.kubernetes.cri.sandbox-id":     sandboxID,
		"io.kubernetes.cri.container-name": c.Name,
	}
	if c.Name == "" {
		annotations["io.kubernetes.cri.container-type"] = "sandbox"
		delete(annotations, "io.kubernetes.cri.container-name")
	}
	metadata, err := json.Marshal(map[string]any{"metadata": annotations})
	if err != nil {
		return err
	}
	rootfs := "/run/kata-containers/" + c.ID + "/rootfs"
	oci := spec(k.cgroup+c.ID, rootfs, annotations, c.Config)
	storages := []*agent.Storage{{
		Driver: "image_guest_pull", Source: c.Image, Fstype: "overlay", MountPoint: rootfs,
		DriverOptions: []string{"image_guest_pull=" + string(metadata)},
	}}
	add := func(at string, storage *agent.Storage) {
		storages = append(storages, storage)
		oci.Mounts = append(oci.Mounts, &agent.Mount{Destination: at, Source: storage.MountPoint, Type: "bind", Options: []string{"rbind", "rprivate", "rw"}})
	}
	for at, disk := range c.Disks {
		add(at, emptyDir(disk))
	}
	for at, disk := range c.Volumes {
		add(at, persistent(disk))
	}
	req := &agent.CreateContainerRequest{ContainerId: c.ID, ExecId: c.ID, Storages: storages, OCI: oci}
	if c.Store != "" {
		bringStore(req, c.Store)
	}
	if _, err := k.CreateContainer(ctx, req); err != nil {
		return fmt.Errorf("CreateContainer: %w", err)
	}
	what := c.Name
	if what == "" {
		what = c.Image
	}
	k.laps.lap(what + " created")
	if _, err := k.StartContainer(ctx, &agent.StartContainerRequest{ContainerId: c.ID}); err != nil {
		return fmt.Errorf("StartContainer: %w", err)
	}
	k.laps.lap(what + " started")
	return nil
}

// Output reads a container's standard output until it contains the text, or
// ends. It returns what was read.
func (k *Kata) Output(ctx context.Context, id, until string) (string, error) {
	var out strings.Builder
	for until == "" || !strings.Contains(out.String(), until) {
		resp, err := k.ReadStdout(ctx, &agent.ReadStreamRequest{ContainerId: id, ExecId: id, Len: 32768})
		if err != nil {
			return out.String(), fmt.Errorf("ReadStdout: %w", err)
		}
		if len(resp.GetData()) == 0 {
			if until != "" {
				return out.String(), fmt.Errorf("output ended without %q: %q", until, out.String())
			}
			break
		}
		out.Write(resp.GetData())
	}
	k.laps.lap("output")
	return out.String(), nil
}

// Errors reads all of a container's standard error.
func (k *Kata) Errors(ctx context.Context, id string) string {
	var out strings.Builder
	for {
		resp, err := k.ReadStderr(ctx, &agent.ReadStreamRequest{ContainerId: id, ExecId: id, Len: 32768})
		if err != nil || len(resp.GetData()) == 0 {
			return out.String()
		}
		out.Write(resp.GetData())
	}
}

// Remove kills a container and removes it, as the shim does on stop.
func (k *Kata) Remove(ctx context.Context, id string) error {
	if _, err := k.SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: id, Signal: 9}); err != nil && !strings.Contains(err.Error(), "ESRCH: No such process") {
		return fmt.Errorf("SignalProcess: %w", err)
	}
	if _, err := k.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: id, ExecId: id}); err != nil {
		return fmt.Errorf("WaitProcess: %w", err)
	}
	if _, err := k.RemoveContainer(ctx, &agent.RemoveContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("RemoveContainer: %w", err)
	}
	if _, err := k.RemoveStaleVirtiofsShareMounts(ctx, &agent.RemoveStaleVirtiofsShareMountsRequest{}); err != nil {
		return fmt.Errorf("RemoveStaleVirtiofsShareMounts: %w", err)
	}
	return nil
}

// EndPod removes the pause container and the sandbox.
func (k *Kata) EndPod(ctx context.Context) error {
	if err := k.Remove(ctx, sandboxID); err != nil {
		return err
	}
	_, err := k.DestroySandbox(ctx, &agent.DestroySandboxRequest{})
	return err
}

// spec is a container's specification as it leaves the shim: namespaces are
// reduced to ipc, uts and mount, hooks and device rules are gone
// (kata-agent 2.9).
func spec(cgroup, rootfs string, annotations map[string]string, config v1.Config) *agent.Spec {
	capabilities := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	cwd := config.WorkingDir
	if cwd == "" {
		cwd = "/"
	}
	return &agent.Spec{
		Version: "1.1.0",
		Process: &agent.Process{
			User: &agent.User{}, Args: append(append([]string{}, config.Entrypoint...), config.Cmd...), Env: config.Env, Cwd: cwd,
			Capabilities:    &agent.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities},
			NoNewPrivileges: true,
		},
		Root:        &agent.Root{Path: rootfs},
		Hostname:    podName,
		Annotations: annotations,
		Mounts: []*agent.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/shm", Type: "bind", Source: "/run/kata-containers/sandbox/shm", Options: []string{"rbind"}},
		},
		Linux: &agent.Linux{
			CgroupsPath: cgroup,
			Namespaces:  []*agent.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{
				"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
			},
			Resources: &agent.LinuxResources{Memory: &agent.LinuxMemory{Limit: 256 << 20}, CPU: &agent.LinuxCPU{Shares: 512}},
		},
	}
}
