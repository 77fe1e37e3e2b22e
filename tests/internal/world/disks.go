package world

import (
	"context"
	"encoding/base64"
	"os"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// DiskSlot is the PCI path of what AddDisk attaches.
const DiskSlot = "10"

// AddDisk gives the machine an empty disk that it may write, and returns its file.
// Machines that go on at the same time all have it, so one of them may use it.
func (f *Fleet) AddDisk(size int64) (string, error) { return f.AddDiskAt(DiskSlot, size) }

// AddDiskAt is AddDisk for another PCI path.
func (f *Fleet) AddDiskAt(slot string, size int64) (string, error) {
	id := "disk" + slot
	file := f.Path(id + ".img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return "", err
	}
	f.machine.ExtraDevices = append(f.machine.ExtraDevices,
		"-drive", "if=none,format=raw,id="+id+",file.locking=off,file="+file, "-device", "virtio-blk-pci,drive="+id+",addr="+slot)
	return file, os.Truncate(file, size)
}

// VolumeResource is the broker's resource with the key of pods' persistent volumes.
const VolumeResource = "default/volume/data"

// KeepVolumeKey has the broker keep a random key for volumes.
func (w *World) KeepVolumeKey(ctx context.Context) error {
	const keySize = 32
	key := secret.Random(keySize)
	defer key.Destroy()
	file := w.Path("volume-key")
	if err := os.WriteFile(file, key.Reveal(), 0o600); err != nil {
		return err
	}
	return w.apply(ctx, "volume.yaml", "kind: Resource\nmetadata: {name: "+VolumeResource+"}\nspec: {valueFile: volume-key}\n")
}

// volumes are the pod's, in the words of Kubernetes.
func (p Pod) volumes() (list []map[string]any) {
	add := func(name, kind string, what map[string]any) {
		list = append(list, map[string]any{"name": name, kind: what})
	}
	if slices.ContainsFunc(p.Beside, func(c Beside) bool { return c.Scratch != "" }) {
		add("scratch", "emptyDir", map[string]any{})
	}
	if p.Volume != "" {
		add("data", "persistentVolumeClaim", map[string]any{"claimName": "data"})
	}
	if p.Store {
		add("store", "persistentVolumeClaim", map[string]any{"claimName": "store"})
	}
	return list
}

// volumeMounts are where a container has them.
func (p Pod) volumeMounts(c Beside) (list []map[string]any) {
	for _, m := range [][2]string{{"scratch", c.Scratch}, {"data", p.Volume}} {
		if m[1] != "" {
			list = append(list, map[string]any{"name": m[0], "mountPath": m[1]})
		}
	}
	return list
}

// keys are the words by which the pod's owner names the key of the volume.
func (p Pod) keys() []string {
	if p.Volume == "" {
		return nil
	}
	key := "data=kbs:///" + VolumeResource
	if p.NewVolume {
		key += ",format"
	}
	return []string{"--encrypted-volume", key}
}

// emptyDir is an emptyDir volume on an encrypted disk, as runtimes send it that are
// configured for confidential guests (kata-agent 2.10).
func emptyDir(disk string) *agent.Storage {
	s := persistent(disk)
	s.Shared, s.DriverOptions = true, []string{"encryption_key=ephemeral", "create_filesystem"}
	return s
}

// persistent is a persistent volume of a pod's, of whose key runtimes know nothing
// (kata-agent 2.10).
func persistent(disk string) *agent.Storage {
	return &agent.Storage{
		Driver: "blk", Source: disk, Fstype: "ext4",
		MountPoint: "/run/kata-containers/sandbox/storage/" + base64.URLEncoding.EncodeToString([]byte(disk)),
	}
}

// trustedStore is where the field's pods have a disk for images (kata-agent 2.11).
const trustedStore = "/dev/trusted_store"

// bringStore adds that disk to a request, as a volume in block mode: under the
// numbers that it has on the host.
func bringStore(req *agent.CreateContainerRequest, disk string) {
	const major, minor = 8, 112
	req.Devices = append(req.Devices, &agent.Device{Type: "blk", Id: disk, ContainerPath: trustedStore})
	req.OCI.Linux.Devices = append(req.OCI.Linux.Devices, &agent.LinuxDevice{Path: trustedStore, Type: "b", Major: major, Minor: minor})
	req.OCI.Linux.Resources.Devices = append(req.OCI.Linux.Resources.Devices, &agent.LinuxDeviceCgroup{Allow: true, Type: "b", Major: major, Minor: minor, Access: "rwm"})
}
