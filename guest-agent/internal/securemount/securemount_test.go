package securemount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/luks2"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func code(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != want {
		t.Helper()
		t.Errorf("got %q (%v), want %q", fault.CodeOf(err), errors.Unwrap(err), want)
	}
}

func ephemeral(dir string) Volume {
	return Volume{Device: Device{Major: 8, Minor: 16}, Format: true, Integrity: true, Filesystem: Ext4, MountPoint: dir}
}

func persistent(dir string) Volume {
	v := ephemeral(dir)
	v.Key = "kbs:///default/volume/1"
	return v
}

func mountPoint(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	return dir
}

func TestEphemeral(t *testing.T) {
	k, dir := newFake(22), mountPoint(t)
	m := New(Config{kernel: k})
	v := ephemeral(dir)
	v.MkfsOptions = strings.Fields("-O ^has_journal -m 0 -E lazy_journal_init")
	must(t, m.Mount(t.Context(), v))
	if want := "mkfs.ext4 -q -F -O ^has_journal -m 0 -E lazy_journal_init,lazy_itable_init=0,nodiscard /dev/mapper/vouchsafe-"; len(k.programs) != 1 || !strings.HasPrefix(k.programs[0], want) {
		t.Errorf("ran %q", k.programs)
	}
	if len(k.keys) != 1 || len(k.keys[0]) != luks2.VolumeKeySize || bytes.Contains(k.disk, k.keys[0][:32]) {
		t.Error("the key has another length than dm-crypt wants, or is on the disk")
	}
	for _, target := range k.maps {
		if strings.Contains(target.Params, fmt.Sprintf("%x", k.keys[0][:32])) {
			t.Error("the key is in a table, where root can read it back")
		}
	}
	if luks2.Is(k.disk) {
		t.Error("an ephemeral volume has a header")
	}
	if l := m.List(); len(l) != 1 || l[0].MountPoint != dir || l[0].Key != "" {
		t.Errorf("the list is %v", l)
	}
	code(t, m.Mount(t.Context(), v), fault.VolumeBusy)
	must(t, m.Unmount(t.Context(), dir))
	code(t, m.Unmount(t.Context(), dir), fault.NotFound)
	k.left(t)
	if !k.empty() {
		t.Error("what an ephemeral volume left on its device is not wiped")
	}
	first := k.keys[0]
	must(t, m.Mount(t.Context(), v))
	if bytes.Equal(first, k.keys[1]) {
		t.Error("two ephemeral volumes have one key")
	}
	must(t, m.Close(t.Context()))
	k.left(t)
	code(t, m.Mount(t.Context(), v), fault.Unavailable)
}

func TestPersistent(t *testing.T) {
	k, dir, keys := newFake(22), mountPoint(t), &fakeKeys{value: secret.Random(32).Reveal()}
	m := New(Config{kernel: k, Keys: keys})
	v := persistent(dir)
	must(t, m.Mount(t.Context(), v))
	must(t, m.Unmount(t.Context(), dir))
	k.left(t)
	code(t, m.Mount(t.Context(), v), fault.VolumeNotEmpty)
	v.Format = false
	must(t, m.Mount(t.Context(), v))
	if len(k.keys) != 2 || !bytes.Equal(k.keys[0], k.keys[1]) || len(k.programs) != 1 {
		t.Error("the volume came back with another key, or was formatted again")
	}
	must(t, m.Close(t.Context()))
	for _, key := range keys.gave {
		if key.Len() != 0 {
			t.Error("a key was not cleared")
		}
	}
	keys.value = secret.Random(32).Reveal()
	m = New(Config{kernel: k, Keys: keys})
	code(t, m.Mount(t.Context(), v), fault.VolumeRefused)
	k.left(t)
	if k.empty() {
		t.Error("a wrong key wiped the volume")
	}
}

// A device that does not pass is refused before any key is asked for, and
// nothing is written to it.
func TestRefusedBeforeTheKey(t *testing.T) {
	hostile := make([]byte, 22<<20)
	copy(hostile, "LUKS\xba\xbe\x00\x02")
	filesystem := make([]byte, 22<<20)
	filesystem[0x438], filesystem[0x439] = 0x53, 0xef // ext4's magic
	end := make([]byte, 22<<20)
	end[len(end)-100] = 1
	for name, c := range map[string]struct {
		disk   []byte
		format bool
		want   fault.Code
	}{
		"hostile header":       {hostile, false, fault.VolumeRefused},
		"hostile header, new":  {hostile, true, fault.VolumeNotEmpty},
		"filesystem, new":      {filesystem, true, fault.VolumeNotEmpty},
		"something at the end": {end, true, fault.VolumeNotEmpty},
		"nothing, not new":     {make([]byte, 22<<20), false, fault.VolumeRefused},
		"too small":            {make([]byte, 1<<20), true, fault.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			k, keys := newFake(0), &fakeKeys{value: secret.Random(32).Reveal()}
			k.disk = bytes.Clone(c.disk)
			v := persistent(mountPoint(t))
			v.Format = c.format
			code(t, New(Config{kernel: k, Keys: keys}).Mount(t.Context(), v), c.want)
			k.left(t)
			if len(keys.asked) > 0 || !bytes.Equal(k.disk, c.disk) {
				t.Error("a key was asked for, or the device was written to")
			}
		})
	}
}

// Whatever fails, nothing stays: no mapping, no mount, and an empty device is
// empty again.
func TestFailuresLeaveNothing(t *testing.T) {
	for _, step := range []string{"open", "format integrity", "unmap integrity", "map integrity", "map crypt", "zero", "mkfs", "mount"} {
		for name, v := range map[string]func(string) Volume{"ephemeral": ephemeral, "persistent": persistent} {
			t.Run(step+", "+name, func(t *testing.T) {
				k, dir := newFake(22), mountPoint(t)
				m := New(Config{kernel: k, Keys: &fakeKeys{value: secret.Random(32).Reveal()}})
				k.fail = step
				code(t, m.Mount(t.Context(), v(dir)), fault.Internal)
				if step == "unmap integrity" { // the way back needs it too, and is tried again
					k.fail = ""
					must(t, m.Unmount(t.Context(), dir))
				}
				k.left(t)
				if !k.empty() {
					t.Error("the device is not empty again")
				}
				if !slices.Contains(k.steps, step) {
					t.Fatal("the step that should fail was never taken")
				}
			})
		}
	}
}

// endingKeys is a broker that answers when the guest ends already.
type endingKeys struct {
	fakeKeys
	end func()
}

func (k *endingKeys) Resource(ctx context.Context, uri string) (secret.Bytes, error) {
	k.end()
	return k.fakeKeys.Resource(ctx, uri)
}

// A volume that comes up while all are taken away does not stay, with its key.
func TestEndWhileMounting(t *testing.T) {
	k, dir := newFake(22), mountPoint(t)
	keys := &endingKeys{fakeKeys: fakeKeys{value: secret.Random(32).Reveal()}}
	m := New(Config{kernel: k, Keys: keys})
	keys.end = func() { must(t, m.Close(t.Context())) }
	code(t, m.Mount(t.Context(), persistent(dir)), fault.Unavailable)
	k.left(t)
	if l := m.List(); len(l) != 0 {
		t.Errorf("the list is %v", l)
	}
}

// A way back that fails too is tried again by Unmount.
func TestFailedRollback(t *testing.T) {
	k, dir := newFake(22), mountPoint(t)
	m := New(Config{kernel: k})
	v := ephemeral(dir)
	must(t, m.Mount(t.Context(), v))
	k.fail = "unmap crypt"
	code(t, m.Unmount(t.Context(), dir), fault.Internal)
	code(t, m.Mount(t.Context(), v), fault.VolumeBusy)
	if len(k.mounts) != 0 || len(k.maps) != 2 {
		t.Errorf("mounts %v, mappings %v", k.mounts, k.maps)
	}
	k.fail = ""
	must(t, m.Unmount(t.Context(), dir))
	k.left(t)
}

// What is asked again is what was lent.
func TestAskAgain(t *testing.T) {
	k, keys, dir := newFake(22), &fakeKeys{value: secret.Random(32).Reveal()}, mountPoint(t)
	m := New(Config{kernel: k, Keys: keys})
	code(t, m.AskAgain(t.Context(), dir), fault.NotFound)
	must(t, m.Mount(t.Context(), persistent(dir)))
	must(t, m.AskAgain(t.Context(), dir))
	if all := m.List(); len(keys.asked) != 2 || keys.asked[0] != keys.asked[1] || len(all) != 1 || !all[0].Lent {
		t.Errorf("asked for %v, volumes %v", keys.asked, all)
	}
	keys.err = fault.Newf(fault.GuestRevoked, "no")
	code(t, m.AskAgain(t.Context(), dir), fault.GuestRevoked)
	must(t, m.Unmount(t.Context(), dir))
	k.disk = make([]byte, len(k.disk))
	must(t, m.Mount(t.Context(), ephemeral(dir)))
	must(t, m.AskAgain(t.Context(), dir)) // nobody's
	for _, key := range keys.gave[:2] {
		if key.Len() != 0 {
			t.Error("a key was not cleared")
		}
	}
	must(t, m.Close(t.Context()))
	k.left(t)
}

func TestRevoke(t *testing.T) {
	k, dir := newFake(22), mountPoint(t)
	m := New(Config{kernel: k})
	code(t, m.Revoke(t.Context(), dir), fault.NotFound)
	must(t, m.Mount(t.Context(), ephemeral(dir)))
	must(t, m.Revoke(t.Context(), dir))
	for name, target := range k.maps {
		if !strings.HasSuffix(name, "-integrity") && target.Kind != "error" {
			t.Errorf("the mapping %s still decrypts", name)
		}
	}
	must(t, m.Revoke(t.Context(), dir))
	must(t, m.Unmount(t.Context(), dir))
	k.left(t)
}

func TestTargetDevice(t *testing.T) {
	k, path := newFake(22), filepath.Join(mountPoint(t), "device")
	m := New(Config{kernel: k})
	v := ephemeral(path)
	v.Filesystem, v.Name = NoFilesystem, "mine"
	must(t, m.Mount(t.Context(), v))
	if _, ok := k.maps["mine"]; !ok || len(k.links) != 1 || len(k.programs) != 0 {
		t.Errorf("mappings %v, links %v, programs %v", k.maps, k.links, k.programs)
	}
	must(t, m.Close(t.Context()))
	k.left(t)
}

func TestMountPoints(t *testing.T) {
	dir := mountPoint(t)
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file")
	must(t, os.Symlink("/etc", link))
	must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{link, file, filepath.Join(dir, "absent"), "relative", "/", dir + "/../x", ""} {
		k := newFake(22)
		code(t, New(Config{kernel: k}).Mount(t.Context(), ephemeral(path)), fault.InvalidRequest)
		k.left(t)
	}
}

func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, secret.Random(32).Reveal(), 0o600))
	big := filepath.Join(t.TempDir(), "big")
	must(t, os.WriteFile(big, make([]byte, maxKey+1), 0o600))
	for where, want := range map[string]fault.Code{
		"kbs:///default/volume/1": "",
		"kbs+x:///a":              "",
		"sealed.a.b.c":            "",
		"file://" + file:          "",
		"file://" + big:           fault.VolumeRefused,
		"file:///does/not/exist":  fault.NotFound,
		"file://host/key":         fault.InvalidRequest,
		"file:relative":           fault.InvalidRequest,
		"https://host/key":        fault.InvalidRequest,
		file:                      fault.InvalidRequest,
	} {
		m := New(Config{kernel: newFake(1), Keys: &fakeKeys{value: make([]byte, 32)}})
		key, err := m.findKey(t.Context(), where)
		if want == "" && (err != nil || key.Len() != 32) {
			t.Errorf("%s: a key of %d bytes, %v", where, key.Len(), err)
		}
		if want != "" {
			code(t, err, want)
		}
	}
	// Without a broker, and with one that refuses.
	_, err := New(Config{}).findKey(t.Context(), "kbs:///a/b/c")
	code(t, err, fault.Unavailable)
	_, err = New(Config{Keys: &fakeKeys{err: fault.New(fault.PolicyDenied, nil)}}).findKey(t.Context(), "kbs:///a/b/c")
	code(t, err, fault.PolicyDenied)
	// A key for a new volume must be long enough.
	k := newFake(22)
	code(t, New(Config{kernel: k, Keys: &fakeKeys{value: []byte("a password")}}).Mount(t.Context(), persistent(mountPoint(t))), fault.VolumeRefused)
	k.left(t)
}

// A superblock lies with the host.
func TestHostileSuperblocks(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"none":               func(b []byte) { clear(b[:8]) },
		"no tags":            func(b []byte) { b[10] = 0 },
		"other sectors":      func(b []byte) { b[28] = 0 },
		"impossible shift":   func(b []byte) { b[28] = 255 },
		"nothing":            func(b []byte) { clear(b[16:24]) },
		"more than there is": func(b []byte) { b[23] = 0x7f },
		"beyond the sign":    func(b []byte) { b[23] = 0xff },
		"parts of blocks":    func(b []byte) { b[16]++ },
	} {
		t.Run(name, func(t *testing.T) {
			k, dir := newFake(22), mountPoint(t)
			m := New(Config{kernel: k, Keys: &fakeKeys{value: make([]byte, 32)}})
			v := persistent(dir)
			must(t, m.Mount(t.Context(), v))
			must(t, m.Unmount(t.Context(), dir))
			change(k.disk[luks2.HeaderSize:])
			v.Format = false
			code(t, m.Mount(t.Context(), v), fault.VolumeRefused)
			k.left(t)
		})
	}
}

func TestEmptyDir(t *testing.T) {
	k, dir := newFake(22), mountPoint(t)
	e := Ephemeral{Mounter: New(Config{kernel: k})}
	f, err := os.Open(dir)
	must(t, err)
	path, err := e.MountOn(t.Context(), "/dev/vdb", f)
	must(t, errors.Join(err, f.Close()))
	fi, err := os.Stat(dir)
	must(t, err)
	if path != dir || fi.Mode().Perm() != 0o777 || len(k.maps) != 2 || len(k.mounts) != 1 {
		t.Errorf("mounted at %s with mode %v: mappings %v, mounts %v", path, fi.Mode(), k.maps, k.mounts)
	}
	must(t, e.Unmount(t.Context(), path))
	k.left(t)
}
