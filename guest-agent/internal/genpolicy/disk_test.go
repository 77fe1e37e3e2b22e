package genpolicy

import (
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// diskYAML is the pod in which both containers use scratch, and app has a volume
// of its own.
var diskYAML = strings.NewReplacer(
	"- {name: scratch, mountPath: /scratch}", "- {name: scratch, mountPath: /scratch}\n    - {name: own, mountPath: /own}",
	"stdin: true", "stdin: true\n    volumeMounts:\n    - {name: scratch, mountPath: /data}",
	"- {name: scratch, emptyDir: {}}", "- {name: scratch, emptyDir: {}}\n  - {name: own, emptyDir: {}}",
).Replace(podYAML)

const (
	scratchDisk = "/run/kata-containers/sandbox/storage/MDUvMDA"
	ownDisk     = "/run/kata-containers/sandbox/storage/MDYvMDA="
)

func encrypted(source, place string) *agent.Storage {
	return &agent.Storage{Driver: "blk", Source: source, Fstype: "ext4", MountPoint: place, Shared: true, DriverOptions: []string{"encryption_key=ephemeral", "create_filesystem"}}
}

func bind(destination, source string) *agent.Mount {
	return &agent.Mount{Destination: destination, Source: source, Type: "bind", Options: []string{"rbind", "rprivate", "rw"}}
}

// appOnDisks and sideOnDisks are what a runtime sends that keeps emptyDir on
// encrypted disks.
func appOnDisks() *agent.CreateContainerRequest {
	m := appRequest()
	m.Storages = append(m.Storages[:2], encrypted("05/00", scratchDisk), encrypted("06/00", ownDisk))
	i := slices.IndexFunc(m.OCI.Mounts, func(m *agent.Mount) bool { return m.Destination == "/scratch" })
	m.OCI.Mounts[i] = bind("/scratch", scratchDisk)
	m.OCI.Mounts = append(m.OCI.Mounts, bind("/own", ownDisk))
	return m
}

func sideOnDisks() *agent.CreateContainerRequest {
	m := sideRequest()
	m.Storages = append(m.Storages, encrypted("05/00", scratchDisk))
	m.OCI.Mounts = append(m.OCI.Mounts, bind("/data", scratchDisk))
	return m
}

func TestEncryptedDisks(t *testing.T) {
	text := generate(t, diskYAML, Options{})
	e := engine(t, text)
	for _, m := range []*agent.CreateContainerRequest{appOnDisks(), sideOnDisks()} {
		if err := judge(t, e, m); err != nil {
			t.Fatal(why(err))
		}
	}
	again := appOnDisks() // a container that comes back finds its disks
	if err := judge(t, e, &agent.RemoveContainerRequest{ContainerId: appID}); err != nil {
		t.Fatal(why(err))
	}
	if err := judge(t, e, again); err != nil {
		t.Error(why(err))
	}
	e = engine(t, text)
	if err := judge(t, e, sideOnDisks()); err != nil {
		t.Fatal("whichever container comes first:", why(err))
	}
	if err := judge(t, e, appOnDisks()); err != nil {
		t.Error(why(err))
	}
}

func TestHostileDisks(t *testing.T) {
	text := generate(t, diskYAML, Options{})
	type req = *agent.CreateContainerRequest
	for name, change := range map[string]func(r req){
		"not encrypted":             func(r req) { r.Storages[2].DriverOptions = nil },
		"only a filesystem":         func(r req) { r.Storages[2].DriverOptions = []string{"create_filesystem"} },
		"another driver":            func(r req) { r.Storages[2].Driver = "virtio-fs" },
		"a layer":                   func(r req) { r.Storages[2].Options = []string{"X-kata.overlay-lower"} },
		"mounted without a storage": func(r req) { r.Storages = slices.Delete(r.Storages, 2, 3) },
		"elsewhere":                 func(r req) { r.Storages[2].MountPoint = "/run/kata-containers/sandbox/shm" },
		"over copied files": func(r req) {
			r.Storages[2].MountPoint = copied(appID, "cfg")
			r.OCI.Mounts[7].Source = copied(appID, "cfg")
		},
		"in place of a config map": func(r req) { r.OCI.Mounts[7].Source = scratchDisk },
		"over the image":           func(r req) { r.OCI.Mounts = append(r.OCI.Mounts, bind("/bin", scratchDisk)) },
		"a directory of the disk":  func(r req) { r.OCI.Mounts[8].Source = scratchDisk + "/x" },
		"one disk for two volumes": func(r req) { r.OCI.Mounts[8].Source = ownDisk },
		"a disk twice, one plain": func(r req) {
			r.Storages = append(r.Storages, &agent.Storage{Driver: "blk", Source: "05/00", MountPoint: scratchDisk})
		},
	} {
		m := appOnDisks()
		if m.OCI.Mounts[7].Destination != "/cfg" || m.OCI.Mounts[8].Destination != "/scratch" {
			t.Fatal("the mounts have another order than is thought below")
		}
		change(m)
		if judge(t, engine(t, text), m) == nil {
			t.Errorf("%s was allowed", name)
		}
	}
	for name, place := range map[string]string{"the volume of another": ownDisk, "another disk than the other container has": "/run/kata-containers/sandbox/storage/MDcvMDA"} {
		e := engine(t, text)
		if err := judge(t, e, appOnDisks()); err != nil {
			t.Fatal(why(err))
		}
		m := sideOnDisks()
		m.Storages[1].MountPoint, m.OCI.Mounts[len(m.OCI.Mounts)-1].Source = place, place
		if judge(t, e, m) == nil {
			t.Errorf("%s was allowed", name)
		}
	}
}
