package securemount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// The tests of this file use the kernel's own device-mapper: build/onkernel runs
// them in a guest.

func needDeviceMapper(t *testing.T) {
	t.Helper()
	if err := dm.Available(); err != nil {
		t.Skip("make test-kernel runs this in a guest:", err)
	}
}

// loop attaches a new sparse file of so many MiB to a loop device.
func loop(t *testing.T, mib int64) (file string, d Device) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(file)
	must(t, err)
	must(t, f.Truncate(mib<<20))
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	must(t, err)
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	must(t, errors.Join(err, control.Close()))
	l, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	must(t, err)
	must(t, unix.IoctlSetInt(int(l.Fd()), unix.LOOP_SET_FD, int(f.Fd())))
	must(t, f.Close())
	t.Cleanup(func() {
		must(t, errors.Join(unix.IoctlSetInt(int(l.Fd()), unix.LOOP_CLR_FD, 0), l.Close()))
	})
	return file, Device{Major: 7, Minor: uint32(n)}
}

func mountDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	must(t, os.Mkdir(dir, 0o755))
	return dir
}

// nothingLeft fails if a mapping, or a key in this thread's keyring, is left.
func nothingLeft(t *testing.T) {
	t.Helper()
	all, err := filepath.Glob("/sys/block/dm-*/dm/name")
	must(t, err)
	for _, name := range all {
		b, err := os.ReadFile(name)
		must(t, err)
		t.Errorf("the mapping %s is left", bytes.TrimSpace(b))
	}
	if keys, err := os.ReadFile("/proc/keys"); err == nil && bytes.Contains(keys, []byte(keyPrefix)) {
		t.Errorf("a key is left:\n%s", keys)
	}
}

var content = bytes.Repeat([]byte("what only the owner may read, and nobody may alter. "), 8000)

func TestGuestEphemeral(t *testing.T) {
	needDeviceMapper(t)
	for _, integrity := range []bool{true, false} {
		t.Run(fmt.Sprintf("integrity %v", integrity), func(t *testing.T) {
			file, device := loop(t, 48)
			dir := mountDir(t)
			m := New(Config{})
			v := Volume{Device: device, Format: true, Integrity: integrity, Filesystem: Ext4, MountPoint: dir,
				MkfsOptions: strings.Fields("-O ^has_journal -m 0 -i 163840 -I 128")} // Kata's
			for range 2 { // the same disk twice: what was unmounted is empty
				must(t, m.Mount(t.Context(), v))
				must(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o600))
				unix.Sync()
				disk, err := os.ReadFile(file)
				must(t, err)
				if bytes.Contains(disk, content[:40]) {
					t.Error("the host can read what was written")
				}
				if err := m.Mount(t.Context(), v); fault.CodeOf(err) != fault.VolumeBusy {
					t.Errorf("mounted twice: %v", err)
				}
				other := v
				other.MountPoint = mountDir(t)
				if err := m.Mount(t.Context(), other); fault.CodeOf(err) != fault.VolumeBusy {
					t.Errorf("one device mounted twice: %v", err)
				}
				must(t, m.Unmount(t.Context(), dir))
				nothingLeft(t)
			}
		})
	}
}

func TestGuestXFS(t *testing.T) {
	needDeviceMapper(t)
	_, device := loop(t, 400) // XFS has a least size of 300 MiB
	dir := mountDir(t)
	m := New(Config{})
	must(t, m.Mount(t.Context(), Volume{Device: device, Format: true, Integrity: true, Filesystem: XFS, MountPoint: dir}))
	must(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o600))
	must(t, m.Close(t.Context()))
	nothingLeft(t)
}

func TestGuestPersistent(t *testing.T) {
	needDeviceMapper(t)
	file, device := loop(t, 64)
	dir := mountDir(t)
	keys := &fakeKeys{value: secret.Random(32).Reveal()}
	m := New(Config{Keys: keys})
	v := Volume{Device: device, Key: "kbs:///default/volume/1", Format: true, Integrity: true, Filesystem: Ext4, MountPoint: dir}
	must(t, m.Mount(t.Context(), v))
	must(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o600))
	must(t, m.Unmount(t.Context(), dir))
	nothingLeft(t)

	if err := m.Mount(t.Context(), v); fault.CodeOf(err) != fault.VolumeNotEmpty {
		t.Errorf("a volume was formatted again: %v", err)
	}
	v.Format = false
	must(t, m.Mount(t.Context(), v))
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("another content came back (%v)", err)
	}
	must(t, m.Unmount(t.Context(), dir))

	wrong := New(Config{Keys: &fakeKeys{value: secret.Random(32).Reveal()}})
	if err := wrong.Mount(t.Context(), v); fault.CodeOf(err) != fault.VolumeRefused {
		t.Errorf("a wrong key: %v", err)
	}
	nothingLeft(t)
	cryptsetupReads(t, file, keys.value)
}

// cryptsetupReads opens the volume as its owner could, at home.
func cryptsetupReads(t *testing.T, file string, key []byte) {
	t.Helper()
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "key")
	must(t, os.WriteFile(keyFile, key, 0o600))
	mustRun(t, "cryptsetup", "open", "--key-file", keyFile, file, "owner")
	mnt := mountDir(t)
	must(t, unix.Mount("/dev/mapper/owner", mnt, "ext4", unix.MS_RDONLY, ""))
	if got, err := os.ReadFile(filepath.Join(mnt, "f")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("cryptsetup reads another content (%v)", err)
	}
	must(t, unix.Unmount(mnt, 0))
	mustRun(t, "cryptsetup", "close", "owner")
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// A bit that the host changes, anywhere, makes the read fail or changes nothing.
func TestGuestTampering(t *testing.T) {
	needDeviceMapper(t)
	file, device := loop(t, 24)
	m := New(Config{Keys: &fakeKeys{value: secret.Random(32).Reveal()}})
	v := Volume{Device: device, Key: "kbs:///default/volume/1", Format: true, Integrity: true, MountPoint: filepath.Join(t.TempDir(), "device")}
	sector := bytes.Repeat([]byte("sector. "), sectorSize/8)
	const at = 100 * sectorSize
	onNode := func(flags int, work func(f *os.File) error) error {
		if err := m.Mount(t.Context(), v); err != nil {
			return err
		}
		f, err := os.OpenFile(v.MountPoint, flags, 0)
		must(t, err)
		return errors.Join(work(f), f.Close(), m.Unmount(t.Context(), v.MountPoint))
	}
	write := func(content []byte) {
		must(t, onNode(os.O_RDWR|os.O_SYNC, func(f *os.File) error { _, err := f.WriteAt(content, at); return err }))
		v.Format = false
	}
	write(make([]byte, sectorSize))
	before, err := os.ReadFile(file)
	must(t, err)
	write(sector)
	after, err := os.ReadFile(file)
	must(t, err)
	var changed []int
	for i := 0; i < len(after); i += sectorSize {
		if !bytes.Equal(before[i:i+sectorSize], after[i:i+sectorSize]) {
			changed = append(changed, i)
		}
	}
	// In front lies the journal, at the end what it was for: the tag and the data.
	failed, kept := 0, 0
	for n, i := range changed {
		if n > 0 && n < len(changed)-3 {
			continue
		}
		bad := bytes.Clone(after[i : i+sectorSize])
		for j := 9; j < len(bad); j += 32 { // also in whatever tag is this sector's
			bad[j] ^= 1
		}
		got := make([]byte, sectorSize)
		writeAt(t, file, bad, int64(i))
		err := onNode(os.O_RDONLY, func(f *os.File) error { _, err := f.ReadAt(got, at); return err })
		switch {
		case err != nil:
			failed++
		case bytes.Equal(got, sector):
			kept++
		default:
			t.Fatalf("after a change at %d another content is read", i)
		}
		writeAt(t, file, after, 0) // all of it: a changed journal is written back
	}
	if failed < 2 { // the data and its tag
		t.Errorf("%d changes were noticed, %d had no effect", failed, kept)
	}
	must(t, onNode(os.O_RDONLY, func(f *os.File) error {
		got := make([]byte, sectorSize)
		_, err := f.ReadAt(got, at)
		if !bytes.Equal(got, sector) {
			t.Error("the unchanged disk reads as something else, so the cases above show nothing")
		}
		return err
	}))
	nothingLeft(t)
}

func writeAt(t *testing.T, file string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(b, at)
	must(t, errors.Join(err, f.Close()))
}

// A host brings a volume of its own, which cryptsetup opens with any key.
func TestGuestNullCipher(t *testing.T) {
	needDeviceMapper(t)
	file, device := loop(t, 32)
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(keyFile, nil, 0o600))
	mustRun(t, "cryptsetup", "luksFormat", "-q", "--type", "luks2", "--cipher", "cipher_null-ecb", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", keyFile, file)
	m := New(Config{Keys: &fakeKeys{value: secret.Random(32).Reveal()}})
	err := m.Mount(t.Context(), Volume{Device: device, Key: "kbs:///default/volume/1", Integrity: true, Filesystem: Ext4, MountPoint: mountDir(t)})
	if fault.CodeOf(err) != fault.VolumeRefused {
		t.Errorf("a null cipher: %v", err)
	}
	nothingLeft(t)
}

// The owner makes a volume at home, with cryptsetup.
func TestGuestVolumeOfCryptsetup(t *testing.T) {
	needDeviceMapper(t)
	file, device := loop(t, 48)
	key := secret.Random(32).Reveal()
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(keyFile, key, 0o600))
	mustRun(t, "cryptsetup", "luksFormat", "-q", "--type", "luks2", "--cipher", "aes-xts-plain64", "--key-size", "512", "--integrity", "hmac-sha256",
		"--integrity-no-wipe", "--sector-size", "4096", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", file, keyFile)
	mustRun(t, "cryptsetup", "open", "--key-file", keyFile, file, "owner")
	must(t, linux{}.zero("/dev/mapper/owner")) // as --integrity-no-wipe wants it
	mustRun(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,nodiscard", "/dev/mapper/owner")
	mustRun(t, "cryptsetup", "close", "owner")
	m := New(Config{Keys: &fakeKeys{value: key}})
	dir := mountDir(t)
	must(t, m.Mount(t.Context(), Volume{Device: device, Key: "kbs:///default/volume/1", Integrity: true, Filesystem: Ext4, MountPoint: dir}))
	must(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o600))
	must(t, m.Close(t.Context()))
	nothingLeft(t)
}

// A key that is taken back is gone, also for those who have files open.
func TestGuestRevoke(t *testing.T) {
	needDeviceMapper(t)
	_, device := loop(t, 32)
	dir := mountDir(t)
	m := New(Config{})
	must(t, m.Mount(t.Context(), Volume{Device: device, Format: true, Integrity: true, Filesystem: Ext4, MountPoint: dir}))
	f, err := os.Create(filepath.Join(dir, "f"))
	must(t, err)
	_, err = f.Write(content)
	must(t, errors.Join(err, f.Sync()))
	if err := m.Unmount(t.Context(), dir); fault.CodeOf(err) != fault.VolumeBusy {
		t.Errorf("unmounted under an open file: %v", err)
	}
	must(t, m.Revoke(t.Context(), dir))
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err == nil {
		t.Error("an open file can be written after the key was taken back")
	}
	_ = f.Close() // with what could not be written
	must(t, m.Unmount(t.Context(), dir))
	nothingLeft(t)
}
