package genpolicy

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

// dataPod is a pod with one volume of the given kind, at /data.
func dataPod(volume string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: pod1}\nspec:\n  automountServiceAccountToken: false\n  containers:\n" +
		"  - {name: side, image: registry.example/side:1, stdin: true, volumeMounts: [{name: data, mountPath: /data}]}\n" +
		"  volumes: [{name: data, " + volume + "}]\n"
}

const claim = "persistentVolumeClaim: {claimName: c}"

var (
	hostData  = Options{InsecureHostVolumes: []string{"data"}}
	ownedData = Options{Keys: map[string]Key{"data": {Location: "kbs:///default/volume/data"}}}
)

// onPlainDisk is the container with its volume on a disk that a runtime plugs in.
func onPlainDisk(change ...func(*agent.CreateContainerRequest)) *agent.CreateContainerRequest {
	m := sideRequest()
	m.Storages = append(m.Storages, &agent.Storage{Driver: "blk", Source: "05/00", Fstype: "ext4", MountPoint: scratchDisk, Shared: true})
	m.OCI.Mounts = append(m.OCI.Mounts, bind("/data", scratchDisk))
	for _, c := range change {
		c(m)
	}
	return m
}

// inShare is the container with its volume as the runtime copies or shares it.
func inShare() *agent.CreateContainerRequest {
	m := sideRequest()
	m.OCI.Mounts = append(m.OCI.Mounts, bind("/data", copied(sideID, "data")))
	return m
}

// byRust is the disk as the Rust runtime sends it: mounted in the shared directory,
// under a name that it has made of the device's.
func byRust(m *agent.CreateContainerRequest) {
	place := shared + "passthrough/" + "d0e1f2-59d45cb60df3b7bf-data"
	m.Storages[1].MountPoint = place
	last := m.OCI.Mounts[len(m.OCI.Mounts)-1]
	last.Source, last.Type = place, "ext4"
}

// A volume of the host's is refused until its owner says what it is worth, with
// words that say how.
func TestVolumesOfTheHost(t *testing.T) {
	for _, volume := range []string{claim, "ephemeral: {volumeClaimTemplate: {}}", "csi: {driver: x}", "hostPath: {path: /srv, type: Directory}"} {
		_, _, err := Generate(t.Context(), []byte(dataPod(volume)), registries(), Options{})
		if err == nil || !strings.Contains(err.Error(), "--insecure-host-volume data") {
			t.Errorf("%s: %v", volume, err)
		}
		text := generate(t, dataPod(volume), hostData)
		for name, m := range map[string]*agent.CreateContainerRequest{"on a disk": onPlainDisk(), "by the Rust runtime": onPlainDisk(byRust), "copied": inShare()} {
			if err := judge(t, engine(t, text), m); err != nil {
				t.Errorf("%s, %s: %s", volume, name, why(err))
			}
		}
	}
	for _, volume := range []string{"hostPath: {path: /dev/kvm}", "hostPath: {path: /proc/../sys}", "hostPath: {path: /run/x.sock, type: Socket}", "hostPath: {path: /d, type: BlockDevice}"} {
		if _, _, err := Generate(t.Context(), []byte(dataPod(volume)), registries(), hostData); err == nil || !strings.Contains(err.Error(), "which a guest has not") {
			t.Errorf("%s: %v", volume, err)
		}
	}
	set := "kind: StatefulSet\nmetadata: {name: pod1}\nspec:\n  volumeClaimTemplates: [{metadata: {name: data}}]\n  template:\n    spec:\n" +
		"      automountServiceAccountToken: false\n      containers: [{name: side, image: registry.example/side:1, volumeMounts: [{name: data, mountPath: /data}]}]\n"
	if err := judge(t, engine(t, generate(t, set, hostData)), onPlainDisk()); err != nil {
		t.Error("the volume of a StatefulSet:", why(err))
	}
}

// What the owner has the key of is opened by it, wherever the runtime mounts it.
func TestEncryptedVolumes(t *testing.T) {
	text := generate(t, dataPod(claim), ownedData)
	for name, m := range map[string]*agent.CreateContainerRequest{
		"on a disk": onPlainDisk(), "by the Rust runtime": onPlainDisk(byRust),
		"to be made": onPlainDisk(func(m *agent.CreateContainerRequest) { m.Storages[1].DriverOptions = []string{"create_filesystem"} }),
	} {
		e := engine(t, text)
		if err := judge(t, e, m); err != nil {
			t.Errorf("%s: %s", name, why(err))
		}
		volumes, err := e.Volumes(t.Context(), m)
		keys := volumes.Keys
		if want := (policy.VolumeKey{Location: "kbs:///default/volume/data"}); err != nil || len(keys) != 1 || keys[m.Storages[1].MountPoint] != want {
			t.Errorf("%s: keys %v, %v", name, keys, err)
		}
	}
	e := engine(t, text)
	if v, err := e.Volumes(t.Context(), onPlainDisk()); err != nil || len(v.Keys) > 0 {
		t.Errorf("keys for a container that was not allowed: %v, %v", v.Keys, err)
	}
	for name, o := range map[string]Options{
		"both":           {Keys: ownedData.Keys, InsecureHostVolumes: []string{"data"}},
		"another volume": {Keys: map[string]Key{"data": {}, "other": {}}},
	} {
		if _, _, err := Generate(t.Context(), []byte(dataPod(claim)), registries(), o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	part := strings.Replace(dataPod(claim), "mountPath: /data", "mountPath: /data, subPath: x", 1)
	for name, pod := range map[string]string{"a directory of the host's": dataPod("hostPath: {path: /srv}"), "a part": part} {
		if _, _, err := Generate(t.Context(), []byte(pod), registries(), ownedData); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestHostileVolumes(t *testing.T) {
	type req = *agent.CreateContainerRequest
	both := map[string]func(r req){
		"a layer":                   func(r req) { r.Storages[1].Options = []string{"X-kata.overlay-lower"} },
		"a share":                   func(r req) { r.Storages[1].Driver = "virtio-fs" },
		"elsewhere":                 func(r req) { r.Storages[1].MountPoint = "/run/kata-containers/sandbox/shm" },
		"a root":                    func(r req) { r.Storages[1].MountPoint = shared + sideID + "/rootfs" },
		"not mounted":               func(r req) { r.OCI.Mounts = r.OCI.Mounts[:len(r.OCI.Mounts)-1] },
		"mounted without a storage": func(r req) { r.Storages = r.Storages[:1] },
		"over the image":            func(r req) { r.OCI.Mounts[len(r.OCI.Mounts)-1].Destination = "/bin" },
		"also over the image":       func(r req) { r.OCI.Mounts = append(r.OCI.Mounts, bind("/bin", scratchDisk)) },
		"a directory of the disk":   func(r req) { r.OCI.Mounts[len(r.OCI.Mounts)-1].Source = scratchDisk + "/x" },
		"a random key":              func(r req) { r.Storages[1].DriverOptions = []string{"encryption_key=ephemeral"} },
		"another filesystem's mount": func(r req) {
			last := r.OCI.Mounts[len(r.OCI.Mounts)-1]
			last.Type, last.Options = "ext4", nil
		},
		"as a device":      func(r req) { r.Devices = []*agent.Device{{Type: "blk", Id: "05/00", ContainerPath: "/data"}} },
		"the guest's disk": func(r req) { r.OCI.Mounts[len(r.OCI.Mounts)-1].Source = "/etc" },
	}
	for what, o := range map[string]Options{"host": hostData, "encrypted": ownedData} {
		e := engine(t, generate(t, dataPod(claim), o)) // one for all: what is refused leaves no note
		for name, change := range both {
			if judge(t, e, onPlainDisk(change)) == nil {
				t.Errorf("%s: %s was allowed", what, name)
			}
		}
	}
	text := generate(t, dataPod(claim), ownedData)
	if judge(t, engine(t, text), inShare()) == nil {
		t.Error("an encrypted volume was copied by the host")
	}
	place := copied(sideID, "hosts")
	files := onPlainDisk(func(r req) {
		r.Storages[1].MountPoint, r.OCI.Mounts[len(r.OCI.Mounts)-1].Source = place, place
	})
	if err := judge(t, engine(t, text), files); err != nil {
		t.Error(why(err))
	}
	files.OCI.Mounts = append(files.OCI.Mounts, bind("/etc/hosts", place))
	if judge(t, engine(t, text), files) == nil {
		t.Error("a file of Kubernetes' lies in a volume")
	}
	shared := Options{Keys: ownedData.Keys, InsecureHostShare: true}
	if judge(t, engine(t, generate(t, dataPod(claim), shared)), onPlainDisk(byRust)) == nil {
		t.Error("an encrypted volume was mounted in a share of the host's")
	}
	text = generate(t, dataPod(claim), Options{InsecureHostVolumes: []string{"data"}, DenyLogs: true})
	for name, m := range map[string]proto.Message{
		"a share": &agent.CreateSandboxRequest{Hostname: "pod1", Storages: []*agent.Storage{sharedStorage()}},
	} {
		if judge(t, engine(t, text), m) == nil {
			t.Errorf("%s was allowed", name)
		}
	}
}

func sharedStorage() *agent.Storage {
	return &agent.Storage{Driver: "virtio-fs", Source: "kataShared", Fstype: "virtiofs", MountPoint: shared}
}

// With a share of the host's, nothing that is the guest's own lies in it.
func TestHostShare(t *testing.T) {
	o := Options{InsecureHostShare: true}
	text := generate(t, podYAML, o)
	sandbox := &agent.CreateSandboxRequest{Hostname: "pod1", Storages: []*agent.Storage{sharedStorage()}}
	if err := judge(t, engine(t, text), sandbox); err != nil {
		t.Error(why(err))
	}
	if err := judge(t, engine(t, text), onDisk(func(*agent.CreateContainerRequest, *agent.Storage) {})); err != nil {
		t.Error("an encrypted emptyDir:", why(err))
	}
	if judge(t, engine(t, text), appRequest()) == nil {
		t.Error("an emptyDir in the share was allowed")
	}
	elsewhere := proto.CloneOf(sandbox)
	elsewhere.Storages[0].MountPoint = "/run/kata-containers/sandbox"
	if judge(t, engine(t, text), elsewhere) == nil {
		t.Error("a share elsewhere was allowed")
	}
}

const blockPod = "apiVersion: v1\nkind: Pod\nmetadata: {name: pod1}\nspec:\n  automountServiceAccountToken: false\n  containers:\n" +
	"  - {name: side, image: registry.example/side:1, volumeDevices: [{name: raw, devicePath: /dev/xvda}]}\n  volumes: [{name: raw, " + claim + "}]\n"

func withDisk() *agent.CreateContainerRequest {
	m := sideRequest()
	m.Devices = []*agent.Device{{Type: "blk", Id: "05/00", ContainerPath: "/dev/xvda"}}
	m.OCI.Linux.Devices = []*agent.LinuxDevice{{Path: "/dev/xvda", Type: "b", Major: 259, Minor: 3}}
	m.OCI.Linux.Resources = &agent.LinuxResources{Devices: []*agent.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: 259, Minor: 3, Access: "rwm"}}}
	return m
}

// Disks as devices, and devices that are passed through.
func TestHostDevices(t *testing.T) {
	if _, _, err := Generate(t.Context(), []byte(blockPod), registries(), Options{}); err == nil || !strings.Contains(err.Error(), "--insecure-host-device raw") {
		t.Error(err)
	}
	o := Options{InsecureHostDevices: []string{"raw"}}
	text := generate(t, blockPod, o)
	if err := judge(t, engine(t, text), withDisk()); err != nil {
		t.Error(why(err))
	}
	type req = *agent.CreateContainerRequest
	e := engine(t, text)
	for name, change := range map[string]func(r req){
		"none":               func(r req) { r.Devices, r.OCI.Linux.Devices, r.OCI.Linux.Resources = nil, nil, nil },
		"two":                func(r req) { r.Devices = append(r.Devices, r.Devices[0]) },
		"elsewhere":          func(r req) { r.Devices[0].ContainerPath = "/dev/sda" },
		"another kind":       func(r req) { r.Devices[0].Type = "vfio-pci" },
		"one passed through": func(r req) { r.Devices = append(r.Devices, &agent.Device{Type: "vfio-pci-gk"}) },
		"another in the spec": func(r req) {
			r.OCI.Linux.Devices = append(r.OCI.Linux.Devices, &agent.LinuxDevice{Path: "/dev/mem", Type: "c", Major: 1, Minor: 1})
		},
		"a character device":   func(r req) { r.OCI.Linux.Devices[0].Type = "c" },
		"access to all disks":  func(r req) { r.OCI.Linux.Resources.Devices[0].Minor = -1 },
		"access to everything": func(r req) { r.OCI.Linux.Resources.Devices[0].Type = "" },
		"mounted":              func(r req) { r.OCI.Mounts = append(r.OCI.Mounts, bind("/data", scratchDisk)) },
	} {
		m := withDisk()
		change(m)
		if judge(t, e, m) == nil {
			t.Errorf("%s: allowed", name)
		}
	}
	store := strings.Replace(blockPod, "/dev/xvda", trustedStore, 1) // the agent encrypts it
	m := withDisk()
	m.Devices[0].ContainerPath, m.OCI.Linux.Devices[0].Path = trustedStore, trustedStore
	if err := judge(t, engine(t, generate(t, store, Options{})), m); err != nil {
		t.Error("a disk for images:", why(err))
	}
	if judge(t, engine(t, generate(t, dataPod(claim), hostData)), withDisk()) == nil {
		t.Error("a pod without devices got one")
	}
}

const gpuPod = "apiVersion: v1\nkind: Pod\nmetadata: {name: pod1}\nspec:\n  automountServiceAccountToken: false\n  containers:\n" +
	"  - {name: side, image: registry.example/side:1, resources: {limits: {cpu: 1, memory: 1Gi, example.com/gpu: \"1\"}}}\n"

func TestPassedDevices(t *testing.T) {
	if _, _, err := Generate(t.Context(), []byte(gpuPod), registries(), Options{}); err == nil || !strings.Contains(err.Error(), "--insecure-host-device example.com/gpu") {
		t.Error(err)
	}
	o := Options{InsecureHostDevices: []string{"example.com/gpu"}}
	text := generate(t, gpuPod, o)
	with := func(kind string, n int, options ...string) *agent.CreateContainerRequest {
		m := sideRequest()
		for range n {
			m.Devices = append(m.Devices, &agent.Device{Type: kind, ContainerPath: "/dev/vfio/12", Options: options})
		}
		m.OCI.Process.Env = append(m.OCI.Process.Env, "PCIDEVICE_EXAMPLE_COM_GPU=0000:3b:00.0")
		return m
	}
	for name, c := range map[string]struct {
		m    *agent.CreateContainerRequest
		want bool
	}{
		"one":          {with("vfio-pci-gk", 1, "0000:3b:00.0=02/00"), true},
		"none":         {with("", 0), true},
		"two":          {with("vfio-pci-gk", 2, "0000:3b:00.0=02/00"), false},
		"another kind": {with("vfio-pci", 1, "0000:3b:00.0=02/00"), false},
		"a disk":       {with("blk", 1), false},
		"malformed":    {with("vfio-pci-gk", 1, "/etc=../.."), false},
	} {
		if err := judge(t, engine(t, text), c.m); (err == nil) != c.want {
			t.Errorf("%s: %v", name, why(err))
		}
	}
	for name, limits := range map[string]string{"half a device": "example.com/gpu: 0.5", "a word": "example.com/gpu: many", "less than none": "example.com/gpu: -1"} {
		pod := strings.Replace(gpuPod, `example.com/gpu: "1"`, limits, 1)
		if _, _, err := Generate(t.Context(), []byte(pod), registries(), o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestPrivileged(t *testing.T) {
	for _, security := range []string{"{privileged: true}", "{capabilities: {add: [ALL]}}"} {
		pod := "kind: Pod\nmetadata: {name: pod1}\nspec: {containers: [{name: side, image: registry.example/side:1, securityContext: " + security + "}]}\n"
		if _, _, err := Generate(t.Context(), []byte(pod), registries(), Options{}); err == nil || !strings.Contains(err.Error(), "--insecure-privileged side") {
			t.Error(err)
		}
		text := generate(t, pod, Options{InsecurePrivileged: []string{"side"}})
		m := sideRequest()
		m.OCI.Process.Capabilities.Bounding = []string{"CAP_SYS_ADMIN", "CAP_SYS_MODULE"}
		if err := judge(t, engine(t, text), m); err != nil {
			t.Error(why(err))
		}
		m.OCI.Linux.Devices = []*agent.LinuxDevice{{Path: "/dev/mem", Type: "c", Major: 1, Minor: 1}}
		if judge(t, engine(t, text), m) == nil {
			t.Error("a device of the host's number was allowed")
		}
	}
	for name, o := range map[string]Options{
		"a container that there is not": {InsecurePrivileged: []string{"other"}},
		"a volume that there is not":    {InsecureHostVolumes: []string{"other"}},
		"a device that there is not":    {InsecureHostDevices: []string{"other"}},
	} {
		if _, _, err := Generate(t.Context(), []byte(podYAML), registries(), o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Of several pods in a file the one that is named is meant.
func TestSeveralPods(t *testing.T) {
	two := podYAML + "---\nkind: DaemonSet\nmetadata: {name: other}\nspec: {template: {spec: {containers: [{name: side, image: registry.example/side:1}]}}}\n"
	for which, host := range map[string]string{"pod1": "pod1", "other": "other-x1", "daemonset/other": "other-x2"} {
		text := generate(t, two, Options{Pod: which})
		if err := judge(t, engine(t, text), &agent.CreateSandboxRequest{Hostname: host}); err != nil {
			t.Errorf("%s: %s", which, why(err))
		}
	}
	for _, which := range []string{"", "third", "pod/other"} {
		if _, _, err := Generate(t.Context(), []byte(two), registries(), Options{Pod: which}); err == nil {
			t.Errorf("%q: taken", which)
		}
	}
}

// Init containers, also those that stay beside the others, are containers.
func TestSidecars(t *testing.T) {
	pod := "kind: Pod\nmetadata: {name: pod1}\nspec:\n  automountServiceAccountToken: false\n  initContainers:\n" +
		"  - {name: side, image: registry.example/side:1, restartPolicy: Always, startupProbe: {exec: {command: [/ready]}}}\n" +
		"  containers: [{name: main, image: registry.example/app:1}]\n"
	e := engine(t, generate(t, pod, Options{}))
	if err := judge(t, e, sideRequest()); err != nil {
		t.Fatal(why(err))
	}
	probe := &agent.ExecProcessRequest{ContainerId: sideID, ExecId: "p", Process: &agent.Process{
		User: &agent.User{}, Args: []string{"/ready"}, Cwd: "/", Env: []string{defaultPath, "HOSTNAME=pod1"}}}
	if err := judge(t, e, probe); err != nil {
		t.Error(why(err))
	}
	probe.Process.Args = slices.Insert(probe.Process.Args, 0, "/bin/sh")
	if judge(t, e, probe) == nil {
		t.Error("another command was allowed")
	}
}

func TestParseKey(t *testing.T) {
	for text, want := range map[string]Key{
		"kbs:///a/b/c": {"kbs:///a/b/c", false}, "kbs://h/a/b/c,format": {"kbs://h/a/b/c", true}, "sealed.x.y.z": {"sealed.x.y.z", false},
	} {
		if k, err := ParseKey(text); err != nil || k != want {
			t.Errorf("%s: %+v, %v", text, k, err)
		}
	}
	for _, text := range []string{"", ",format", "file:///etc/x", "secret"} {
		if k, err := ParseKey(text); err == nil {
			t.Errorf("%q: %+v", text, k)
		}
	}
}
