package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/image/erofs"
	"github.com/vouchsafe-cc/vouchsafe/image/verity"
)

// image is a layer with its tree, as a file on a loop device, and the options
// that a runtime sends with it.
type image struct {
	node, file string
	options    []string
}

// newImage makes a layer of files. With tree it has a hash tree behind it, after
// a superblock if so wanted.
func newImage(t *testing.T, files map[string]string, tree, superblock bool) image {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := verity.NewBuilder([]byte("salt"))
	if err != nil {
		t.Fatal(err)
	}
	var raw, hashes bytes.Buffer
	if _, err := erofs.Write(t.Context(), io.MultiWriter(&raw, b), dir); err != nil {
		t.Fatal(err)
	}
	root, err := b.Finish(&hashes)
	if err != nil {
		t.Fatal(err)
	}
	size := raw.Len()
	i := image{options: []string{"ro", "X-kata.overlay-lower", "X-kata.multi-layer=true"}}
	if tree {
		i.options = append(i.options, "X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash="+hex.EncodeToString(root.Hash[:]),
			fmt.Sprintf("X-kata.dmverity.hashoffset=%d", size))
		if superblock {
			raw.Write(superblockOf(root))
		} else {
			i.options = append(i.options, "X-kata.dmverity.no-superblock=true", "X-kata.dmverity.salt="+hex.EncodeToString(root.Salt))
		}
		raw.Write(hashes.Bytes())
	}
	i.node, i.file = loopDisk(t, int64(raw.Len()))
	f, err := os.OpenFile(i.file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return i
}

// superblockOf is that which veritysetup writes, in a block of its own.
func superblockOf(r verity.Root) []byte {
	b := make([]byte, verity.BlockSize)
	copy(b, "verity\x00\x00")
	le := binary.LittleEndian
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], 1)
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], verity.BlockSize)
	le.PutUint32(b[68:], verity.BlockSize)
	le.PutUint64(b[72:], uint64(r.Blocks))
	le.PutUint16(b[80:], uint16(len(r.Salt)))
	copy(b[88:], r.Salt)
	return b
}

const ownRoot = GuestDir + "/app1/rootfs"

// layered is the storages of a root of two layers, as runtime-rs sends them.
func layered(t *testing.T, list ...image) ([]*agent.Storage, disks) {
	t.Helper()
	d := disks{}
	storages := []*agent.Storage{{
		Driver: "mmioblk", Source: "/dev/vda", Fstype: "ext4", MountPoint: ownRoot,
		Options: []string{"rw", "X-kata.overlay-upper", "X-kata.multi-layer=true", "X-kata.mkdir.path={{ mount 0 }}/upper:0755"},
	}}
	for i, l := range list {
		source := "/dev/vd" + string(rune('b'+i))
		d[source] = block(t, l.node)
		storages = append(storages, &agent.Storage{Driver: "mmioblk", Source: source, Fstype: "erofs", MountPoint: ownRoot, Options: l.options})
	}
	return storages, d
}

func withBundle(t *testing.T, d disks) *Sandbox {
	t.Helper()
	s := newTestSandbox(t, func(c *Config) { c.Devices = d })
	if _, err := s.NewBundle("app1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.RemoveBundle("app1"); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The container sees the layers over one another, writes beside them, and what it
// wrote is not on the host's disk: that is not even looked for.
func TestLayers(t *testing.T) {
	hasErofs(t)
	top := newImage(t, map[string]string{"both": "top", "one": "1"}, false, false)
	bottom := newImage(t, map[string]string{"both": "bottom", "two": "2"}, false, false)
	storages, d := layered(t, top, bottom)
	s := withBundle(t, d)
	v, err := s.Prepare(t.Context(), "app1", storages)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(s.dir, "app1/rootfs")
	if v.Rootfs != root || v.Image != "" {
		t.Errorf("root %q, image %q", v.Rootfs, v.Image)
	}
	for name, want := range map[string]string{"both": "top", "one": "1", "two": "2"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "both"), []byte("mine"), 0o644); err != nil {
		t.Error(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil || fs.Flags&unix.ST_NODEV == 0 {
		t.Errorf("devices can be used: %+v, %v", fs, err)
	}
	if err := v.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range d {
		if err := b.Unused(); err != nil {
			t.Error(err)
		}
	}
}

// needsVerity skips where the kernel has no device-mapper, but not in the guest
// that is booted for it.
func needsVerity(t *testing.T) {
	t.Helper()
	hasErofs(t)
	if err := dm.Available(); err != nil {
		if os.Getenv("VOUCHSAFE_HAS_VERITY") != "" { // make test-kernel
			t.Fatal(err)
		}
		t.Skipf("needs dm-verity (make test-kernel has it): %v", err)
	}
}

// Layers with a tree are read through dm-verity, with a superblock and without:
// a disk that the host alters is an error, not other content.
func TestLayersAreChecked(t *testing.T) {
	needsVerity(t)
	files := map[string]string{"a": strings.Repeat("a", 64<<10)}
	one, two := newImage(t, files, true, true), newImage(t, files, true, false)
	for name, i := range map[string]image{"with a superblock": one, "without": two} {
		storages, d := layered(t, i)
		s := withBundle(t, d)
		v, err := s.Prepare(t.Context(), "app1", storages)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := "verity:" + strings.TrimPrefix(i.options[4], "X-kata.dmverity.roothash="); v.Image != want {
			t.Errorf("image %q, want %q", v.Image, want)
		}
		got, err := os.ReadFile(filepath.Join(v.Rootfs, "a"))
		if err != nil || string(got) != files["a"] {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if err := v.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		alter(t, i)
		v, err = s.Prepare(t.Context(), "app1", storages)
		if err != nil {
			continue // found when mounting
		}
		if got, err := os.ReadFile(filepath.Join(v.Rootfs, "a")); err == nil {
			t.Errorf("%s: %d bytes of an altered disk were read", name, len(got))
		}
		if err := v.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// alter changes the content of the file in a layer.
func alter(t *testing.T, i image) {
	t.Helper()
	raw, err := os.ReadFile(i.file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, bytes.Repeat([]byte("a"), 4096))
	f, err := os.OpenFile(i.node, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(bytes.Repeat([]byte("b"), 4096), int64(at&^4095)+4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestLayersRefused(t *testing.T) {
	needsRoot(t)
	node, _ := loopDisk(t, 1<<20)
	lower := image{node: node, options: []string{"X-kata.overlay-lower", "X-kata.multi-layer=true"}}
	for name, change := range map[string]func([]*agent.Storage) []*agent.Storage{
		"nothing to write to":     func(l []*agent.Storage) []*agent.Storage { return l[1:] },
		"nothing below":           func(l []*agent.Storage) []*agent.Storage { return l[:1] },
		"two to write to":         func(l []*agent.Storage) []*agent.Storage { return append(l, l[0]) },
		"several places":          func(l []*agent.Storage) []*agent.Storage { l[1].MountPoint = GuestDir + "/sandbox/x"; return l },
		"neither upper nor lower": func(l []*agent.Storage) []*agent.Storage { l[1].Options = l[1].Options[1:]; return l },
		"both": func(l []*agent.Storage) []*agent.Storage {
			l[1].Options = append(l[1].Options, l[0].Options...)
			return l
		},
		"a layer that can be made": func(l []*agent.Storage) []*agent.Storage {
			l[1].DriverOptions = []string{"create_filesystem"}
			return l
		},
		"a layer of ext4":         func(l []*agent.Storage) []*agent.Storage { l[1].Fstype = "ext4"; return l },
		"a driver without a disk": func(l []*agent.Storage) []*agent.Storage { l[1].Driver = driverLayers; return l },
		"another's root": func(l []*agent.Storage) []*agent.Storage {
			for _, st := range l {
				st.MountPoint = GuestDir + "/app2/rootfs"
			}
			return l
		},
		"directories elsewhere": func(l []*agent.Storage) []*agent.Storage {
			l[0].Options = append(l[0].Options, "X-kata.mkdir.path={{ mount 0 }}/../../x")
			return l
		},
		"directories below": func(l []*agent.Storage) []*agent.Storage {
			l[0].Options = append(l[0].Options, "X-kata.mkdir.path={{ mount 1 }}/x")
			return l
		},
		"no image on the disk": func(l []*agent.Storage) []*agent.Storage { return l },
		"beside a pull": func(l []*agent.Storage) []*agent.Storage {
			return append(l, &agent.Storage{Driver: "image_guest_pull", Source: "pause", MountPoint: ownRoot})
		},
	} {
		storages, d := layered(t, lower)
		s := withBundle(t, d)
		if v, err := s.Prepare(t.Context(), "app1", change(storages)); err == nil {
			t.Errorf("%s was taken", name)
			_ = v.Release(t.Context())
		}
		if left, err := os.ReadDir(filepath.Join(s.dir, "app1")); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

func TestParseVerity(t *testing.T) {
	root := hex.EncodeToString(make([]byte, sha256.Size))
	good := map[string][]string{"dmverity-enabled": {"true"}, "dmverity.roothash": {root}, "dmverity.hashoffset": {"8192"}, "dmverity.salt": {"ab"}, "dmverity.no-superblock": {"true"}}
	v, err := parseVerity(good)
	if err != nil {
		t.Fatal(err)
	}
	want := "1 /dev/vda /dev/vda 4096 4096 2 2 sha256 " + root + " ab"
	if got := v.target("/dev/vda"); got.Params != want || got.Sectors != 16 || !got.ReadOnly {
		t.Errorf("%+v, want %q", got, want)
	}
	var invalid *InvalidError
	for name, value := range map[string]string{
		"dmverity.roothash": root[2:], "dmverity.hashoffset": "8191", "dmverity.blocksize": "4095", "dmverity.hashsize": "131072", "dmverity.salt": "x",
	} {
		bad := map[string][]string{}
		for k, v := range good {
			bad[k] = v
		}
		bad[name] = []string{value}
		if _, err := parseVerity(bad); !errors.As(err, &invalid) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
		bad[name] = slices.Repeat(good[name], 2)
		if _, err := parseVerity(bad); len(good[name]) > 0 && !errors.As(err, &invalid) {
			t.Errorf("%s twice: %v", name, err)
		}
	}
}

// What the disk says of itself must be what was allowed.
func TestSuperblock(t *testing.T) {
	r := verity.Root{Salt: []byte("salt"), Blocks: 2}
	read := func(change func([]byte)) error {
		raw := append(make([]byte, 8192), superblockOf(r)...)
		change(raw[8192:])
		v := &checked{hashOffset: 8192, dataBlock: 4096, hashBlock: 4096}
		err := v.readSuperblock(bytes.NewReader(raw))
		if err == nil && string(v.salt) != "salt" {
			t.Errorf("salt %q", v.salt)
		}
		return err
	}
	if err := read(func([]byte) {}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func([]byte){
		"no superblock": func(b []byte) { b[0] = 0 }, "another version": func(b []byte) { b[8] = 2 }, "another hash": func(b []byte) { copy(b[32:], "sha1\x00\x00") },
		"other blocks": func(b []byte) { b[65] = 8 }, "fewer blocks": func(b []byte) { b[72] = 1 }, "a long salt": func(b []byte) { b[81] = 2 },
	} {
		if err := read(change); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzStorageOptions(f *testing.F) {
	f.Add("ro,X-kata.dmverity-enabled=true,X-kata.dmverity.hashoffset=4096", "blk", "02/00", "ext4")
	f.Add("r40X-kata.d", "blk", "02/00", "ext4") // no option of Kata's
	f.Add("X-kata.multi-layer=true,X-kata.overlay-lower", "mmioblk", "/dev/vda", "erofs")
	f.Fuzz(func(t *testing.T, options, driver, source, fstype string) {
		st := &agent.Storage{Driver: driver, Source: source, Fstype: fstype, Options: strings.Split(options, ",")}
		own, rest := kataOptions(st.Options)
		d, err := parseDisk(st, own, rest)
		if err != nil {
			return
		}
		if strings.Contains(d.o.data, "/") || strings.Contains(","+d.o.data, ","+kataOption) || d.verity != nil && d.o.flags&unix.MS_RDONLY == 0 {
			t.Fatalf("%q became %+v", options, d)
		}
		_, _ = parseLayers([]*agent.Storage{st, st})
	})
}
