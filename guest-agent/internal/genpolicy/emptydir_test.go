package genpolicy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

// partsYAML is the pod in which app mounts parts of both emptyDirs, and side the
// whole of one.
var partsYAML = strings.NewReplacer(
	"runtimeClassName: kata", "runtimeClassName: kata\n  securityContext: {fsGroup: 2000}",
	"- {name: scratch, mountPath: /scratch}", "- {name: scratch, mountPath: /scratch, subPath: a/./b}",
	"- {name: mem, mountPath: /mem}", "- {name: mem, mountPath: /mem, subPathExpr: \"$(MODE)-x\"}",
	"{name: cfg, mountPath: /cfg, readOnly: true}", "{name: cfg, mountPath: /cfg, readOnly: true, subPathExpr: \"$(POD_IP)\"}",
	"stdin: true", "stdin: true\n    volumeMounts:\n    - {name: scratch, mountPath: /data}",
).Replace(podYAML)

// inParts is what runtimes send for it: directories that the host has copied.
func inParts() *agent.CreateContainerRequest {
	m := appRequest()
	m.Storages = m.Storages[:1]
	for _, mount := range m.OCI.Mounts {
		if mount.Destination == "/scratch" || mount.Destination == "/mem" {
			mount.Source, mount.Type = copied(appID, mount.Destination[1:]), "bind"
		}
	}
	return m
}

func TestPartsOfEmptyDir(t *testing.T) {
	text := generate(t, partsYAML, Options{})
	e := engine(t, text)
	if v, err := e.Volumes(t.Context(), inParts()); err != nil || len(v.EmptyDirs) > 0 {
		t.Errorf("for a container that was not allowed: %+v, %v", v, err)
	}
	side := sideRequest()
	side.Storages = append(side.Storages, appRequest().Storages[2])
	side.OCI.Mounts = append(side.OCI.Mounts, &agent.Mount{Destination: "/data", Source: side.Storages[1].MountPoint, Type: "local", Options: []string{"rbind"}})
	for _, c := range []struct {
		m    *agent.CreateContainerRequest
		want map[string]policy.EmptyDir
	}{
		{inParts(), map[string]policy.EmptyDir{"/scratch": {Volume: "scratch", Path: "a/b", Group: 2000}, "/mem": {Volume: "mem", Path: "pod-x", Memory: true, Group: 2000}}},
		{side, map[string]policy.EmptyDir{"/data": {Volume: "scratch", Group: 2000}}},
	} {
		if err := judge(t, e, c.m); err != nil {
			t.Fatal(why(err))
		}
		v, err := e.Volumes(t.Context(), c.m)
		if err != nil || !maps.Equal(v.EmptyDirs, c.want) {
			t.Errorf("%+v, want %+v, %v", v.EmptyDirs, c.want, err)
		}
	}
	e = engine(t, text)
	if err := judge(t, e, onDisk(func(*agent.CreateContainerRequest, *agent.Storage) {})); err != nil {
		t.Error("by a runtime that brings a disk:", why(err))
	}
	e = engine(t, text)
	for name, change := range map[string]func(*agent.CreateContainerRequest){
		"over the image": func(r *agent.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, bind("/bin", copied(appID, "scratch")))
		},
		"left out": func(r *agent.CreateContainerRequest) {
			r.OCI.Mounts = slices.DeleteFunc(r.OCI.Mounts, func(m *agent.Mount) bool { return m.Destination == "/mem" })
		},
		"a filesystem of the host's":  func(r *agent.CreateContainerRequest) { r.OCI.Mounts[8].Type = "nfs" },
		"the config map's, elsewhere": func(r *agent.CreateContainerRequest) { r.OCI.Mounts[7].Source = "/etc" },
	} {
		m := inParts()
		change(m)
		if judge(t, e, m) == nil {
			t.Errorf("%s: allowed", name)
		}
	}
	if strings.Contains(generate(t, podYAML, Options{}), "empty_dirs") {
		t.Error("a pod without parts pays for them")
	}
}

// Where the Rust runtime has an emptyDir, and one of large pages by either runtime.
func TestPlacesOfEmptyDir(t *testing.T) {
	m := appRequest()
	rust := strings.Replace(m.Storages[2].MountPoint, shared, shared+"passthrough/", 1)
	m.Storages[2].MountPoint, m.OCI.Mounts[8].Source = rust, rust
	if err := judge(t, engine(t, generate(t, podYAML, Options{})), m); err != nil {
		t.Error("by the Rust runtime:", why(err))
	}
	for _, medium := range []string{"HugePages", "HugePages-2Mi"} {
		text := generate(t, strings.Replace(podYAML, "medium: Memory", "medium: "+medium, 1), Options{})
		huge := func(options ...string) *agent.CreateContainerRequest {
			m := appRequest()
			m.Storages[1] = &agent.Storage{Driver: "ephemeral", Source: "nodev", Fstype: "hugetlbfs", MountPoint: m.Storages[1].MountPoint, Options: options}
			return m
		}
		for name, m := range map[string]*agent.CreateContainerRequest{
			"Go": huge("pagesize=2Mi", "size=4194304"), "Rust": huge("pagesize=2097152,size=4194304"),
		} {
			if err := judge(t, engine(t, text), m); err != nil {
				t.Errorf("%s, %s: %s", medium, name, why(err))
			}
		}
		elsewhere := huge("pagesize=2Mi", "size=4194304")
		elsewhere.Storages[1].MountPoint = "/run/kata-containers/sandbox/ephemeral/other"
		if judge(t, engine(t, text), elsewhere) == nil || judge(t, engine(t, text), appRequest()) == nil {
			t.Error("large pages elsewhere, or none, were allowed")
		}
		if judge(t, engine(t, generate(t, podYAML, Options{})), huge()) == nil {
			t.Error("a pod without large pages got some")
		}
	}
}

// A volume in block mode that its owner has the key of.
func TestKeyedDevices(t *testing.T) {
	o := Options{Keys: map[string]Key{"raw": {Location: "kbs:///default/volume/raw", Format: true}}}
	e := engine(t, generate(t, blockPod, o))
	if err := judge(t, e, withDisk()); err != nil {
		t.Fatal(why(err))
	}
	v, err := e.Volumes(t.Context(), withDisk())
	if want := map[string]policy.VolumeKey{"/dev/xvda": {Location: "kbs:///default/volume/raw", Format: true}}; err != nil || !maps.Equal(v.Devices, want) || len(v.Keys) > 0 {
		t.Errorf("%+v, want %v, %v", v, want, err)
	}
	other := withDisk()
	other.Devices[0].ContainerPath, other.OCI.Linux.Devices[0].Path = "/dev/xvdb", "/dev/xvdb"
	if judge(t, engine(t, generate(t, blockPod, o)), other) == nil {
		t.Error("it was allowed elsewhere")
	}
	store := strings.Replace(blockPod, "/dev/xvda", trustedStore, 1)
	both := Options{Keys: o.Keys, InsecureHostDevices: []string{"raw"}}
	for name, c := range map[string]struct {
		pod string
		o   Options
	}{"for images": {store, o}, "both": {blockPod, both}} {
		if _, _, err := Generate(t.Context(), []byte(c.pod), registries(), c.o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
