package genpolicy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

// images are a registry.
type images map[string]Image

func (i images) Image(_ context.Context, ref string) (Image, error) {
	if img, ok := i[ref]; ok {
		return img, nil
	}
	return Image{}, fmt.Errorf("no image %q", ref)
}

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

// registry is what the pods below need.
func registries() images {
	app := Image{
		References: []string{"registry.example/app:1", "registry.example/app@" + digestA}, Digests: []string{digestA},
		Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"}, Env: []string{"PATH=/bin", "MODE=image"}, WorkingDir: "/srv", User: "1000",
	}
	return images{
		"registry.example/app:1":   app,
		"registry.example/side:1":  {References: []string{"registry.example/side:1"}, Digests: []string{digestB}, Cmd: []string{"/side"}},
		"registry.example/named:1": {References: []string{"registry.example/named:1"}, Digests: []string{digestB}, Cmd: []string{"/x"}, User: "www-data", Files: usersFiles},
		"registry.example/blind:1": {References: []string{"registry.example/blind:1"}, Digests: []string{digestB}, Cmd: []string{"/x"}, User: "www-data"},
	}
}

const podYAML = `
apiVersion: v1
kind: Pod
metadata: {name: pod1}
spec:
  runtimeClassName: kata
  containers:
  - name: app
    image: registry.example/app:1
    args: ["serve", "--mode=$(MODE)", "$$HOME"]
    env:
    - {name: MODE, value: pod}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    livenessProbe: {exec: {command: ["/bin/app", "health"]}}
    volumeMounts:
    - {name: cfg, mountPath: /cfg, readOnly: true}
    - {name: scratch, mountPath: /scratch}
    - {name: mem, mountPath: /mem}
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
  - name: side
    image: registry.example/side:1
    stdin: true
  volumes:
  - {name: cfg, configMap: {name: cfg}}
  - {name: scratch, emptyDir: {}}
  - {name: mem, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cfg}
data: {key: value}
`

func generate(t testing.TB, yaml string, o Options) string {
	t.Helper()
	text, _, err := Generate(t.Context(), []byte(yaml), registries(), o)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func engine(t testing.TB, text string) *policy.Engine {
	t.Helper()
	e, err := policy.New(t.Context(), text, policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const (
	sandboxID = "e45d57c5ad4a415a744d5490d57fd63c4add2777e4478fd96c8f0c3235c17dd8"
	appID     = "d72c33e9410a864080a361173ea8ab731c9045ab89ec82ac2250802afa7eff42"
	sideID    = "280ee4d631aaab9db68d3e045efd99e6f2dc67d5c564365db9e3c7b8c64d78ff"
	shared    = "/run/kata-containers/shared/containers/"
)

func copied(id, name string) string { return shared + id + "-59d45cb60df3b7bf-" + name }

func defaultMounts() []*agent.Mount {
	return []*agent.Mount{
		{Destination: "/proc", Source: "proc", Type: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Source: "devpts", Type: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Source: "mqueue", Type: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Source: "sysfs", Type: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Source: "cgroup", Type: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		{Destination: "/dev/shm", Source: "/run/kata-containers/sandbox/shm", Type: "bind", Options: []string{"rbind"}},
	}
}

func pulled(id, ref string) *agent.Storage {
	return &agent.Storage{Driver: "image_guest_pull", Source: ref, Fstype: "overlay", MountPoint: "/run/kata-containers/" + id + "/rootfs"}
}

// pauseRequest and the others are what a runtime sends for the pod above.
func pauseRequest() *agent.CreateContainerRequest {
	return &agent.CreateContainerRequest{
		ContainerId: sandboxID, ExecId: sandboxID, Storages: []*agent.Storage{pulled(sandboxID, "pause")},
		OCI: &agent.Spec{
			Version: "1.0.2-dev", Process: &agent.Process{User: &agent.User{}, Args: []string{"/pause"}, Cwd: "/", NoNewPrivileges: true, OOMScoreAdj: -998},
			Root: &agent.Root{Readonly: true}, Hostname: "pod1",
			Mounts: append(defaultMounts(), defaultMounts()[6],
				&agent.Mount{Destination: "/etc/resolv.conf", Source: copied(sandboxID, "resolv.conf"), Type: "bind", Options: []string{"rbind", "ro"}}),
			Linux: &agent.Linux{Namespaces: []*agent.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}}},
		},
	}
}

func appRequest() *agent.CreateContainerRequest {
	local := shared + sandboxID + "/rootfs/local/scratch"
	rights := []string{"CAP_NET_BIND_SERVICE"}
	return &agent.CreateContainerRequest{
		ContainerId: appID, ExecId: appID,
		Storages: []*agent.Storage{
			pulled(appID, "registry.example/app:1"),
			{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/ephemeral/mem"},
			{Driver: "local", Source: "local", Fstype: "local", Options: []string{"mode=0777"}, MountPoint: local},
		},
		OCI: &agent.Spec{
			Version: "1.2.0",
			Process: &agent.Process{
				User: &agent.User{UID: 1000, AdditionalGids: []uint32{0}},
				Args: []string{"/bin/app", "serve", "--mode=pod", "$HOME"}, Cwd: "/srv",
				Env: []string{
					"PATH=/bin", "HOSTNAME=pod1", "MODE=pod", "POD_IP=10.0.0.7", "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
					"KUBERNETES_SERVICE_HOST=10.96.0.1", "WEB_SERVICE_PORT_HTTP=80", "WEB_PORT_80_TCP_PROTO=tcp",
				},
				Capabilities:    &agent.LinuxCapabilities{Bounding: rights, Effective: rights, Permitted: rights},
				NoNewPrivileges: true, OOMScoreAdj: 1000, Rlimits: []*agent.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
			},
			Root: &agent.Root{Path: "/run/kata-containers/" + appID + "/rootfs", Readonly: true},
			Mounts: append(defaultMounts(),
				&agent.Mount{Destination: "/cfg", Source: copied(appID, "cfg"), Type: "bind", Options: []string{"rbind", "rprivate", "ro"}},
				&agent.Mount{Destination: "/scratch", Source: local, Type: "local", Options: []string{"rbind", "rprivate", "rw"}},
				&agent.Mount{Destination: "/mem", Source: "/run/kata-containers/sandbox/ephemeral/mem", Type: "bind", Options: []string{"rbind", "rprivate", "rw"}},
				&agent.Mount{Destination: "/etc/hosts", Source: copied(appID, "etc-hosts"), Type: "bind", Options: []string{"rbind", "rprivate", "rw"}},
				&agent.Mount{Destination: "/dev/termination-log", Source: copied(appID, "termination-log"), Type: "bind", Options: []string{"rbind", "rprivate", "rw"}},
				&agent.Mount{Destination: tokenPath, Source: copied(appID, "serviceaccount"), Type: "bind", Options: []string{"rbind", "rprivate", "ro"}}),
			Annotations: map[string]string{"io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.image-name": "registry.example/app:1"},
			Linux: &agent.Linux{
				Resources: &agent.LinuxResources{Memory: &agent.LinuxMemory{Limit: 1 << 27}}, CgroupsPath: "/kubepods/pod1/" + appID,
				Namespaces:  []*agent.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
				MaskedPaths: []string{"/proc/kcore"}, Sysctl: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
			},
		},
	}
}

func sideRequest() *agent.CreateContainerRequest {
	all := []string{"CAP_CHOWN", "CAP_KILL"}
	return &agent.CreateContainerRequest{
		ContainerId: sideID, Storages: []*agent.Storage{pulled(sideID, "registry.example/side:1")},
		OCI: &agent.Spec{
			Process: &agent.Process{
				User: &agent.User{AdditionalGids: []uint32{0, 1, 2, 3, 4, 6, 10}}, Args: []string{"/side"}, Cwd: "/",
				Env: []string{defaultPath, "HOSTNAME=pod1"}, Capabilities: &agent.LinuxCapabilities{Bounding: all, Permitted: all},
			},
			Root: &agent.Root{}, Mounts: defaultMounts(), Linux: &agent.Linux{},
			Annotations: map[string]string{"io.kubernetes.cri.container-name": "side"},
		},
	}
}

func judge(t testing.TB, e *policy.Engine, m proto.Message) error {
	t.Helper()
	done, err := e.Judge(t.Context(), m)
	if err == nil {
		done(true)
	}
	return err
}

func why(err error) string {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Cause() != nil {
		return f.Cause().Error()
	}
	return fmt.Sprint(err)
}

// The pod runs, whichever runtime asks for it, and however often a container is
// started again.
func TestPodRuns(t *testing.T) {
	e := engine(t, generate(t, podYAML, Options{}))
	allow := func(m proto.Message) {
		t.Helper()
		if err := judge(t, e, m); err != nil {
			t.Errorf("%s: %s", m.ProtoReflect().Descriptor().Name(), why(err))
		}
	}
	allow(&agent.CreateSandboxRequest{Hostname: "pod1", SandboxId: sandboxID, Dns: []string{"nameserver 10.0.0.10"}, Storages: []*agent.Storage{
		{Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/shm", Options: []string{"size=67108864"}}}})
	allow(pauseRequest())
	allow(&agent.CopyFileRequest{Path: copied(appID, "cfg") + "/..2026_08_01/key1", FileMode: 0o100644})
	allow(&agent.CopyFileRequest{Path: copied(appID, "cfg") + "/..data", FileMode: 0o120777, Data: []byte("..2026_08_01")})
	allow(&agent.CopyFileRequest{Path: copied(appID, "cfg"), FileMode: 0o042755})
	allow(appRequest())
	allow(sideRequest())
	allow(&agent.ExecProcessRequest{ContainerId: appID, ExecId: "x", Process: &agent.Process{
		User: &agent.User{UID: 1000}, Args: []string{"/bin/app", "health"}, Env: []string{"PATH=/bin", "MODE=pod", "HOSTNAME=pod1"}, Cwd: "/srv"}})
	allow(&agent.UpdateContainerRequest{ContainerId: appID, Resources: &agent.LinuxResources{Devices: []*agent.LinuxDeviceCgroup{{Access: "rwm"}}}})
	allow(&agent.UpdateContainerRequest{ContainerId: appID})
	allow(&agent.ReadStreamRequest{ContainerId: appID})
	allow(&agent.WriteStreamRequest{ContainerId: sideID, ExecId: sideID, Data: []byte("x")})
	allow(&agent.GetDiagnosticDataRequest{LogType: "termination_log"})
	allow(&agent.RemoveContainerRequest{ContainerId: appID})
	again := appRequest()
	again.ContainerId = strings.Repeat("1", 64)
	for _, s := range again.OCI.Mounts {
		s.Source = strings.Replace(s.Source, appID, again.ContainerId, 1)
	}
	again.Storages[0] = pulled(again.ContainerId, "registry.example/app@"+digestA)
	again.Storages[1].Driver = "ephemeral"
	allow(again)
	allow(&agent.DestroySandboxRequest{})
	if err := e.CheckImage(t.Context(), "registry.example/app:1", digestA); err != nil {
		t.Error(err)
	}
	if err := e.CheckImage(t.Context(), "registry.example/app:1", digestB); err == nil {
		t.Error("the image of another container was allowed")
	}
}

// Whatever else a host asks for.
func TestHostileRequests(t *testing.T) {
	text := generate(t, podYAML, Options{DenyLogs: true})
	fresh := engine(t, text) // what is refused leaves no note
	deny := func(name string, m proto.Message, before ...proto.Message) {
		t.Helper()
		e := fresh
		if len(before) > 0 {
			e = engine(t, text)
		}
		for _, b := range before {
			if err := judge(t, e, b); err != nil {
				t.Fatalf("%s: before: %s", name, why(err))
			}
		}
		if judge(t, e, m) == nil {
			t.Errorf("%s was allowed", name)
		}
	}
	for name, change := range hostileChanges() {
		m := appRequest()
		change(m)
		deny(name, m)
	}
	for name, change := range map[string]func(*agent.CreateContainerRequest){
		"pause with an image": func(m *agent.CreateContainerRequest) { m.Storages[0].Source = "registry.example/app:1" },
		"pause with another storage": func(m *agent.CreateContainerRequest) {
			m.Storages = append(m.Storages, pulled(sandboxID, "registry.example/app:1"))
		},
		"pause over a workload's file": func(m *agent.CreateContainerRequest) { m.OCI.Mounts[8].Destination = "/pause" },
		"pause without storage":        func(m *agent.CreateContainerRequest) { m.Storages = nil },
	} {
		m := pauseRequest()
		change(m)
		deny(name, m)
	}
	deny("the same container twice", func() *agent.CreateContainerRequest {
		m := sideRequest()
		m.ContainerId, m.Storages[0].MountPoint = "b", "/run/kata-containers/b/rootfs"
		return m
	}(), sideRequest())
	deny("the same id twice", sideRequest(), sideRequest())
	exec := func(change func(*agent.Process)) *agent.ExecProcessRequest {
		p := &agent.Process{User: &agent.User{UID: 1000}, Args: []string{"/bin/app", "health"}, Env: []string{"PATH=/bin", "MODE=pod"}, Cwd: "/srv"}
		change(p)
		return &agent.ExecProcessRequest{ContainerId: appID, ExecId: "x", Process: p}
	}
	for name, change := range map[string]func(*agent.Process){
		"exec of a shell":         func(p *agent.Process) { p.Args = []string{"/bin/sh"} },
		"exec with an argument":   func(p *agent.Process) { p.Args = append(p.Args, "x") },
		"exec as root":            func(p *agent.Process) { p.User.UID = 0 },
		"exec elsewhere":          func(p *agent.Process) { p.Cwd = "/cfg" },
		"exec with LD_PRELOAD":    func(p *agent.Process) { p.Env = append(p.Env, "LD_PRELOAD=/cfg/x.so") },
		"exec without a variable": func(p *agent.Process) { p.Env = p.Env[:1] },
		"exec on a terminal":      func(p *agent.Process) { p.Terminal = true },
		"exec with capabilities":  func(p *agent.Process) { p.Capabilities = &agent.LinuxCapabilities{Ambient: []string{"CAP_SYS_ADMIN"}} },
	} {
		deny(name, exec(change), appRequest())
	}
	deny("exec before there is a container", exec(func(*agent.Process) {}))
	deny("exec in another container", &agent.ExecProcessRequest{ContainerId: sideID, Process: exec(func(*agent.Process) {}).Process}, appRequest(), sideRequest())
	deny("input for one that reads none", &agent.WriteStreamRequest{ContainerId: appID}, appRequest())
	deny("logs", &agent.ReadStreamRequest{ContainerId: appID})
	for name, m := range hostileCopies() {
		deny(name, m)
	}
	for name, m := range map[string]proto.Message{
		"guest hooks":         &agent.CreateSandboxRequest{Hostname: "pod1", GuestHookPath: "/x"},
		"kernel modules":      &agent.CreateSandboxRequest{Hostname: "pod1", KernelModules: []*agent.KernelModule{{Name: "x"}}},
		"another pod's name":  &agent.CreateSandboxRequest{Hostname: "pod2"},
		"a shared filesystem": &agent.CreateSandboxRequest{Hostname: "pod1", Storages: []*agent.Storage{{Driver: "virtio-fs", MountPoint: shared}}},
		"access to devices":   &agent.UpdateContainerRequest{Resources: &agent.LinuxResources{Devices: []*agent.LinuxDeviceCgroup{{Allow: true, Type: "b", Access: "rwm"}}}},
		"tmpfs over a root":   &agent.UpdateEphemeralMountsRequest{Storages: []*agent.Storage{{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: "/run/kata-containers/app/rootfs"}}},
		"another policy":      &agent.SetPolicyRequest{Policy: "package agent_policy"},
		"swap":                &agent.AddSwapPathRequest{Path: "/dev/vdb"},
		"the clock":           &agent.SetGuestDateTimeRequest{Sec: 1},
		"packet filters":      &agent.SetIPTablesRequest{},
		"the loopback":        &agent.UpdateInterfaceRequest{Interface: &types.Interface{Name: "lo"}},
		"a route on loopback": &agent.UpdateRoutesRequest{Routes: &agent.Routes{Routes: []*types.Route{{Device: "lo"}}}},
	} {
		deny(name, m)
	}
}

func hostileChanges() map[string]func(*agent.CreateContainerRequest) {
	type req = *agent.CreateContainerRequest
	mounted := func(m *agent.Mount) func(req) { return func(r req) { r.OCI.Mounts = append(r.OCI.Mounts, m) } }
	return map[string]func(req){
		"other arguments":             func(r req) { r.OCI.Process.Args[1] = "dump" },
		"another argument":            func(r req) { r.OCI.Process.Args = append(r.OCI.Process.Args, "--debug") },
		"other directory":             func(r req) { r.OCI.Process.Cwd = "/cfg" },
		"another variable":            func(r req) { r.OCI.Process.Env = append(r.OCI.Process.Env, "LD_PRELOAD=/cfg/evil.so") },
		"a variable changed":          func(r req) { r.OCI.Process.Env[2] = "MODE=image" },
		"a variable missing":          func(r req) { r.OCI.Process.Env = slices.Delete(r.OCI.Process.Env, 2, 3) },
		"a variable twice":            func(r req) { r.OCI.Process.Env = append(r.OCI.Process.Env, "POD_IP=10.0.0.8") },
		"a service that is none":      func(r req) { r.OCI.Process.Env = append(r.OCI.Process.Env, "X_SERVICE_HOST=$(evil)") },
		"a lone name":                 func(r req) { r.OCI.Process.Env = append(r.OCI.Process.Env, "pod1") },
		"another host name":           func(r req) { r.OCI.Process.Env[1] = "HOSTNAME=pod2" },
		"as root":                     func(r req) { r.OCI.Process.User.UID = 0 },
		"another group":               func(r req) { r.OCI.Process.User.GID = 4 },
		"a further group":             func(r req) { r.OCI.Process.User.AdditionalGids = []uint32{4} },
		"by name":                     func(r req) { r.StringUser = &agent.StringUser{Uid: "root"} },
		"on a terminal":               func(r req) { r.OCI.Process.Terminal = true },
		"new privileges":              func(r req) { r.OCI.Process.NoNewPrivileges = false },
		"a capability":                func(r req) { r.OCI.Process.Capabilities.Ambient = []string{"CAP_SYS_ADMIN"} },
		"capabilities not limited":    func(r req) { r.OCI.Process.Capabilities = nil },
		"a writable root":             func(r req) { r.OCI.Root.Readonly = false },
		"another image":               func(r req) { r.Storages[0].Source = "registry.example/evil:1" },
		"the image of another":        func(r req) { r.Storages[0].Source = "registry.example/side:1" },
		"two images":                  func(r req) { r.Storages = append(r.Storages, r.Storages[0]) },
		"no image":                    func(r req) { r.Storages = r.Storages[1:] },
		"an image elsewhere":          func(r req) { r.Storages[0].MountPoint = "/run/kata-containers/x/rootfs" },
		"a block device":              func(r req) { r.Storages[2].Driver, r.Storages[2].Source = "blk", "02/00" },
		"a bind storage":              func(r req) { r.Storages[1].Driver = "bind" },
		"a storage elsewhere":         func(r req) { r.Storages[1].MountPoint = "/run/kata-containers/sandbox/ephemeral/other" },
		"a storage over copied files": func(r req) { r.Storages[2].MountPoint = copied(appID, "x") + "/rootfs/local/scratch" },
		"emptyDir with host's files":  func(r req) { r.OCI.Mounts[8].Source = copied(appID, "x") },
		"emptyDir below copied files": func(r req) { r.OCI.Mounts[8].Source = copied(appID, "x") + "/rootfs/local/scratch" },
		"a volume missing":            func(r req) { r.OCI.Mounts = slices.Delete(r.OCI.Mounts, 7, 8) },
		"a volume writable":           func(r req) { r.OCI.Mounts[7].Options = []string{"rbind"} },
		"a volume writable again":     func(r req) { r.OCI.Mounts[7].Options = []string{"rbind", "ro", "rw"} },
		"another container's files":   func(r req) { r.OCI.Mounts[7].Source = copied(sideID, "cfg") },
		"the guest's files":           func(r req) { r.OCI.Mounts[7].Source = "/etc" },
		"over the image":              mounted(&agent.Mount{Destination: "/bin", Source: copied(appID, "bin"), Type: "bind", Options: []string{"rbind"}}),
		"over the image, by proc":     mounted(&agent.Mount{Destination: "/bin", Source: "proc", Type: "proc"}),
		"proc that is a bind mount":   mounted(&agent.Mount{Destination: "/proc", Source: copied(appID, "proc"), Type: "proc", Options: []string{"rbind"}}),
		"dev with host's files":       mounted(&agent.Mount{Destination: "/dev", Source: copied(appID, "dev"), Type: "bind"}),
		"a device":                    func(r req) { r.OCI.Linux.Devices = []*agent.LinuxDevice{{Path: "/dev/vda", Type: "b", Major: 254}} },
		"a device of the agent's":     func(r req) { r.Devices = []*agent.Device{{Type: "blk"}} },
		"access to devices":           func(r req) { r.OCI.Linux.Resources.Devices = []*agent.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}} },
		"mounts between containers":   func(r req) { r.SharedMounts = []*agent.SharedMount{{Name: "x"}} },
		"hooks":                       func(r req) { r.OCI.Hooks = &agent.Hooks{Poststop: []*agent.Hook{{Path: "/x"}}} },
		"a shared process namespace":  func(r req) { r.SandboxPidns = true },
		"a namespace to join":         func(r req) { r.OCI.Linux.Namespaces[2].Path = "/proc/1/ns/mnt" },
		"another network": func(r req) {
			r.OCI.Linux.Namespaces[0] = &agent.LinuxNamespace{Type: "network", Path: "/proc/1/ns/net"}
		},
		"mapped ids":                    func(r req) { r.OCI.Linux.UIDMappings = []*agent.LinuxIDMapping{{HostID: 1, Size: 1}} },
		"a sysctl":                      func(r req) { r.OCI.Linux.Sysctl["kernel.core_pattern"] = "|/cfg/x" },
		"a sysctl with another value":   func(r req) { r.OCI.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "1" },
		"a filter of system calls":      func(r req) { r.OCI.Linux.Seccomp = &agent.LinuxSeccomp{DefaultAction: "SCMP_ACT_ERRNO"} },
		"mounts that spread":            func(r req) { r.OCI.Linux.RootfsPropagation = "rshared" },
		"an annotation that runc obeys": func(r req) { r.OCI.Annotations["org.systemd.property.x"] = "y" },
		"an annotation that crun obeys": func(r req) { r.OCI.Annotations["run.oci.handler"] = "krun" },
		"by another's name":             func(r req) { r.OCI.Annotations["io.kubernetes.cri.container-name"] = "side" },
		"no spec":                       func(r req) { r.OCI = nil },
		"no process":                    func(r req) { r.OCI.Process = nil },
		"no linux section":              func(r req) { r.OCI.Linux = nil },
	}
}

func hostileCopies() map[string]*agent.CopyFileRequest {
	regular := func(path string) *agent.CopyFileRequest {
		return &agent.CopyFileRequest{Path: path, FileMode: 0o100644}
	}
	link := func(target string) *agent.CopyFileRequest {
		return &agent.CopyFileRequest{Path: copied(appID, "cfg") + "/x", FileMode: 0o120777, Data: []byte(target)}
	}
	return map[string]*agent.CopyFileRequest{
		"elsewhere":               regular("/etc/passwd"),
		"a root":                  regular(shared + appID + "/rootfs/bin/sh"),
		"an emptyDir":             regular(shared + sandboxID + "/rootfs/local/scratch/x"),
		"out":                     regular(copied(appID, "cfg") + "/../x"),
		"out by name":             regular(copied(appID, "..") + "/.."),
		"a setuid program":        {Path: copied(appID, "cfg"), FileMode: 0o104755},
		"a setgid program":        {Path: copied(appID, "cfg"), FileMode: 0o102755},
		"a device":                {Path: copied(appID, "cfg"), FileMode: 0o060644},
		"a link to the root":      link("/etc"),
		"a link out":              link("a/../../b"),
		"a link to its parents":   link(".."),
		"a link into an emptyDir": {Path: copied(appID, "cfg"), FileMode: 0o120777, Data: []byte(sandboxID + "/rootfs/local/scratch")},
	}
}

// What a policy costs: once, when an agent starts; and for each container.
func BenchmarkCompile(b *testing.B) {
	text := generate(b, podYAML, Options{})
	for b.Loop() {
		engine(b, text)
	}
}

func BenchmarkCreateContainer(b *testing.B) {
	e, m := engine(b, generate(b, podYAML, Options{})), appRequest()
	for b.Loop() {
		done, err := e.Judge(b.Context(), m)
		if err != nil {
			b.Fatal(err)
		}
		done(false)
	}
}

func BenchmarkReadStream(b *testing.B) {
	e, m := engine(b, generate(b, podYAML, Options{})), &agent.ReadStreamRequest{}
	for b.Loop() {
		if _, err := e.Judge(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
