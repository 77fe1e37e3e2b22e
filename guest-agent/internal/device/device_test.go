package device

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseAddress(t *testing.T) {
	for _, c := range [][2]string{
		{PCI, "02"}, {PCI, "02/00"}, {PCI, "1e/0f.7"}, {PCI, "20/02/00"}, {PCI, "/dev/vda"}, {PCI, "/dev/nvme0n1"},
		{MMIO, "/dev/vdb"}, {SCSI, "0:1"}, {SCSI, "255:16383"}, {NVDIMM, "/dev/pmem0"},
	} {
		a, err := ParseAddress(c[0], c[1])
		if err != nil || a.String() != c[1] {
			t.Errorf("%v: %v, %v", c, a, err)
		}
	}
	var invalid *InvalidError
	for _, c := range [][2]string{
		{PCI, ""}, {PCI, "2"}, {PCI, "02/"}, {PCI, "zz"}, {PCI, "20/02"}, {PCI, "02/20"}, {PCI, "02.8"}, {PCI, "../.."}, {PCI, strings.Repeat("01/", 8) + "01"},
		{PCI, "/dev/mem"}, {PCI, "/dev/vda1"}, {PCI, "/dev/dm-0"}, {PCI, "/dev/loop0"}, {PCI, "/dev/../etc/passwd"}, {PCI, "/dev/vda\n"},
		{MMIO, "/dev/sda"}, {MMIO, "02/00"}, {SCSI, "1"}, {SCSI, "1:2:3"}, {SCSI, "*:0"}, {SCSI, "01:0"}, {SCSI, "/dev/sda"},
		{NVDIMM, "/dev/vda"}, {"9p", "x"}, {"vfio-pci", "02/00"}, {"", ""},
	} {
		if a, err := ParseAddress(c[0], c[1]); !errors.As(err, &invalid) {
			t.Errorf("%v: %v, %v", c, a, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("blk", "02/1f.3")
	f.Add("scsi", "0:1")
	f.Add("mmioblk", "/dev/vda")
	f.Fuzz(func(t *testing.T, kind, text string) {
		a, err := ParseAddress(kind, text)
		if err != nil {
			return
		}
		// Case and a function of 0 may be written in two ways.
		b, err := ParseAddress(kind, a.String())
		if err != nil || a.String() != b.String() || strings.Contains(a.String(), "..") {
			t.Fatalf("%q means %q, which means %q, %v", text, a, b, err)
		}
	})
}

func TestParseEvent(t *testing.T) {
	e, err := ParseEvent([]byte("add@/devices/virtual/block/vda\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=vda\x00"))
	if err != nil || e != (Event{"add", "/devices/virtual/block/vda", "block"}) {
		t.Errorf("%+v, %v", e, err)
	}
	for _, raw := range []string{"", "libudev\x00", "add", "@/x", "add@x", "\x00add@/x"} {
		if e, err := ParseEvent([]byte(raw)); err == nil {
			t.Errorf("%q: %+v", raw, e)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00SUBSYSTEM=block\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if e, err := ParseEvent(raw); err == nil && !strings.HasPrefix(string(raw), e.Action+"@"+e.Path) {
			t.Fatalf("%q means %+v", raw, e)
		}
	})
}

// events are a kernel's that a test plays.
type events struct {
	ch     chan string
	closed chan struct{}
	once   sync.Once
}

func newEvents() *events { return &events{ch: make(chan string), closed: make(chan struct{})} }

func (e *events) Receive() ([]byte, error) {
	select {
	case text := <-e.ch:
		return []byte(text), nil
	case <-e.closed:
		return nil, io.EOF
	}
}

func (e *events) Close() error { e.once.Do(func() { close(e.closed) }); return nil }

// tree is a /sys and a /dev made of files, with a real block device behind a name.
type tree struct {
	t    *testing.T
	root string
}

func (tr tree) write(name, text string) {
	tr.t.Helper()
	path := filepath.Join(tr.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

// disk makes a disk known under a name, at the places in /sys that lead to it.
func (tr tree) disk(name string, places ...string) {
	tr.t.Helper()
	tr.write("/sys/class/block/"+name+"/dev", "7:250\n")
	for _, p := range places {
		tr.write(p+"/"+name+"/size", "0")
	}
	if err := os.MkdirAll(tr.root+"/dev", 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := unix.Mknod(tr.root+"/dev/"+name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 250))); err != nil {
		tr.t.Fatal(err)
	}
}

func newTree(t *testing.T) (tree, *Finder, *events) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make nodes of devices")
	}
	e := newEvents()
	tr := tree{t, t.TempDir()}
	return tr, New(Config{Root: tr.root, Timeout: time.Second, Listen: func() (Events, error) { return e, nil }}), e
}

func address(t *testing.T, kind, text string) Address {
	t.Helper()
	a, err := ParseAddress(kind, text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What was there from the start is found by looking.
func TestColdplug(t *testing.T) {
	tr, f, _ := newTree(t)
	tr.disk("vda", "/sys/devices/pci0000:00/0000:00:02.0/0000:01:00.0/virtio3/block")
	tr.write("/sys/devices/pci0000:00/0000:00:02.0/pci_bus/0000:01/power", "")
	tr.disk("vdb", "/sys/devices/pci0000:20/0000:20:03.0/0000:21:01.1/virtio4/block")
	tr.write("/sys/devices/pci0000:20/0000:20:03.0/pci_bus/0000:21/power", "")
	tr.disk("sda", "/sys/bus/scsi/devices/2:0:0:1/block")
	tr.disk("pmem0")
	for _, c := range []struct{ kind, text, want string }{
		{PCI, "02/00", "vda"}, {PCI, "20/03/01.1", "vdb"}, {SCSI, "0:1", "sda"}, {MMIO, "/dev/vda", "vda"}, {NVDIMM, "/dev/pmem0", "pmem0"},
	} {
		b, err := f.Find(t.Context(), address(t, c.kind, c.text))
		if err != nil || b.Name != c.want || b.Path != tr.root+"/dev/"+c.want || b.Major != 7 || b.Minor != 250 {
			t.Errorf("%s: %+v, %v", c.text, b, err)
		}
	}
	tr.disk("vda2")
	tr.disk("pmem0p1")
	for disk, want := range map[string]string{"vda": "vda2", "pmem0": "pmem0p1"} {
		if b, err := f.Partition(t.Context(), Block{Name: disk}, int(want[len(want)-1]-'0')); err != nil || b.Name != want {
			t.Errorf("%s: %+v, %v", want, b, err)
		}
	}
}

// A disk that comes later is found at its event, and a SCSI host is told to look.
func TestHotplug(t *testing.T) {
	tr, f, e := newTree(t)
	f.cfg.Timeout, f.every = 20*time.Second, time.Hour // only events count
	scan := "/sys/class/scsi_host/host0/scan"
	tr.write(scan, "")
	type found struct {
		b   Block
		err error
	}
	done := make(chan found)
	go func() {
		b, err := f.Find(t.Context(), address(t, SCSI, "0:7"))
		done <- found{b, err}
	}()
	e.ch <- "change@/devices/x\x00SUBSYSTEM=net\x00"
	for told := ""; told != "0 0 7"; {
		raw, err := os.ReadFile(tr.root + scan)
		if err != nil || t.Context().Err() != nil {
			t.Fatal("the host is not told", err)
		}
		told = string(raw)
	}
	tr.disk("sdb", "/sys/bus/scsi/devices/0:0:0:7/block")
	e.ch <- "add@/devices/sdb\x00SUBSYSTEM=block\x00"
	if got := <-done; got.err != nil || got.b.Name != "sdb" {
		t.Errorf("%+v", got)
	}
}

// What never comes ends with an error that says so, and nothing is left running.
func TestAbsent(t *testing.T) {
	tr, f, _ := newTree(t)
	f.cfg.Timeout = 150 * time.Millisecond
	tr.write("/sys/class/block/vdc/dev", "7:251\n") // its node is another device's
	if err := os.MkdirAll(tr.root+"/dev", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(tr.root+"/dev/vdc", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 250))); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{PCI, "02/00"}, {SCSI, "0:1"}, {MMIO, "/dev/vdc"}} {
		if b, err := f.Find(t.Context(), address(t, c[0], c[1])); !errors.Is(err, ErrTimeout) {
			t.Errorf("%v: %+v, %v", c, b, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Find(gone, address(t, PCI, "02/00")); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
	f.cfg.Listen = func() (Events, error) { return nil, errors.New("no netlink here") }
	if _, err := f.Find(t.Context(), address(t, PCI, "02/00")); !errors.Is(err, ErrTimeout) {
		t.Errorf("without events: %v", err)
	}
	tr.disk("sda", "/sys/bus/scsi/devices/0:0:0:1/block", "/sys/bus/scsi/devices/1:0:0:1/block")
	var invalid *InvalidError
	if b, err := f.Find(t.Context(), address(t, SCSI, "0:1")); !errors.As(err, &invalid) {
		t.Errorf("two disks at one address: %+v, %v", b, err)
	}
}

// The kernel's own events can be listened to, where that is allowed.
func TestListen(t *testing.T) {
	e, err := Listen()
	if err != nil {
		t.Skipf("the kernel does not let its device events be listened to here: %v", err)
	}
	done := make(chan error)
	go func() { _, err := e.Receive(); done <- err }()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Log("an event came meanwhile")
	}
}

// A disk that is mounted is in use.
func TestUnused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("no loop device can be had: %v", err)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", node).Run() })
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	b := Block{Name: "vda", Path: node, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	if err := b.Unused(); err != nil {
		t.Error(err)
	}
	held, err := os.OpenFile(node, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	if err := b.Unused(); !errors.Is(err, ErrBusy) {
		t.Errorf("in use, and: %v", err)
	}
	b.Minor++
	_ = held.Close()
	if err := b.Unused(); !errors.Is(err, ErrBusy) {
		t.Errorf("another device, and: %v", err)
	}
}

// On a real machine (make test-kernel): a disk behind a bridge, and one at a SCSI
// host, that go and come back while they are looked for.
func TestRealHotplug(t *testing.T) {
	if os.Getenv("VOUCHSAFE_HAS_DISKS") == "" {
		t.Skip("needs the machine of make test-kernel")
	}
	f := New(Config{Timeout: 60 * time.Second})
	for _, c := range []struct{ kind, text, rescan string }{{PCI, "05/00", "/sys/bus/pci/rescan"}, {SCSI, "0:1", ""}} {
		at := address(t, c.kind, c.text)
		b, err := f.Find(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Unused(); err != nil {
			t.Error(err)
		}
		path := "/sys/class/block/" + b.Name + "/device/../remove" // of the PCI function of the virtio device
		if c.kind == SCSI {
			path = "/sys/class/block/" + b.Name + "/device/delete"
		}
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Timeout: time.Millisecond}).Find(t.Context(), address(t, MMIO, "/dev/vdz")); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
		done := make(chan error)
		go func() { _, err := f.Find(t.Context(), at); done <- err }()
		if c.rescan != "" { // a SCSI host is told by the finder itself
			if err := os.WriteFile(c.rescan, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Errorf("%s came back, and: %v", c.text, err)
		}
	}
}
