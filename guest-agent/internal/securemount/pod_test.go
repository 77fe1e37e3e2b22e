package securemount

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A volume with a key is made on an empty disk where its owner allows that, found
// again afterwards, and opened by no other key.
func TestMountKey(t *testing.T) {
	k, keys := newFake(22), &fakeKeys{value: secret.Random(32).Reveal()}
	m := New(Config{kernel: k, Keys: keys})
	dir, err := os.Open(mountPoint(t))
	must(t, err)
	t.Cleanup(func() { _ = dir.Close() })
	const key = "kbs:///default/volume/1"
	mount := func(format bool, fs Filesystem, where string) error {
		path, err := m.MountKey(t.Context(), "/dev/vdb", where, format, fs, 0, dir)
		if err != nil {
			return err
		}
		if path != dir.Name() {
			t.Errorf("mounted on %s", path)
		}
		return m.Unmount(t.Context(), path)
	}
	code(t, mount(false, Ext4, key), fault.VolumeRefused) // nothing is there, and nothing is to be made
	k.left(t)
	if !k.empty() {
		t.Error("a disk was written to that nobody wanted to be formatted")
	}
	must(t, mount(true, Ext4, key))
	must(t, mount(true, Ext4, key))
	must(t, mount(false, Ext4, key))
	if len(k.programs) != 1 || len(k.keys) != 3 || !bytes.Equal(k.keys[0], k.keys[2]) {
		t.Errorf("formatted by %q, opened %d times", k.programs, len(k.keys))
	}
	code(t, mount(false, "btrfs", key), fault.InvalidRequest)
	code(t, mount(true, Ext4, ""), fault.InvalidRequest)
	keys.value = secret.Random(32).Reveal()
	code(t, mount(true, Ext4, key), fault.VolumeRefused)
	k.left(t)
	if k.empty() {
		t.Error("another key wiped the volume")
	}
}

// A volume that is a device is made once, opened again by its key and by no other,
// and shown by a link.
func TestOpenKey(t *testing.T) {
	k, keys := newFake(22), &fakeKeys{value: secret.Random(32).Reveal()}
	m := New(Config{kernel: k, Keys: keys})
	const key, link = "kbs:///default/volume/1", "/run/link"
	open := func(format bool, where string) error {
		if err := m.OpenKey(t.Context(), "/dev/vdb", where, format, link); err != nil {
			return err
		}
		if !slices.Equal(k.links, []string{link}) || len(k.mounts) > 0 || len(k.programs) > 0 {
			t.Errorf("links %v, mounts %v, programs %v", k.links, k.mounts, k.programs)
		}
		if all := m.List(); len(all) != 1 || !all[0].Lent || all[0].MountPoint != link {
			t.Errorf("the key is not held as lent: %+v", all)
		}
		return m.Unmount(t.Context(), link)
	}
	code(t, open(false, key), fault.VolumeRefused)
	code(t, open(true, ""), fault.InvalidRequest)
	if !k.empty() {
		t.Error("a disk was written to that nobody wanted to be formatted")
	}
	must(t, open(true, key))
	must(t, open(true, key))
	must(t, open(false, key))
	if zeroed := len(slices.DeleteFunc(slices.Clone(k.steps), func(s string) bool { return s != "zero" })); zeroed != 1 {
		t.Errorf("%d times zeros were written, once is for a new volume", zeroed)
	}
	keys.value = secret.Random(32).Reveal()
	code(t, open(true, key), fault.VolumeRefused)
	k.left(t)
	if k.empty() {
		t.Error("another key wiped the volume")
	}
}
