package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

func newTestSandbox(t testing.TB, change ...func(*Config)) *Sandbox {
	t.Helper()
	cfg := Config{Dir: t.TempDir()}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if left, err := mountsBelow(s.dir); err != nil || len(left) > 0 {
			t.Errorf("mounts left: %v, %v", left, err)
		}
	})
	return s
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"t1", "a.b_c-d", strings.Repeat("a", 64), "0f"} {
		if err := CheckID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", "a", ".a", "-a", "a/b", "..", "../x", "a b", "ab\n", "ab\x00", "é1", strings.Repeat("a", 256), "image", "sandbox", "sandbox-ns", "shared", "runtime", "journal"} {
		if err := CheckID(id); !errors.Is(err, ErrBadID) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestPaths(t *testing.T) {
	s := newTestSandbox(t)
	for in, want := range map[string]string{
		GuestDir + "/sandbox/shm":    "sandbox/shm",
		GuestDir + "//a/./b/../c":    "a/c",
		s.dir + "/shared/containers": "shared/containers",
	} {
		if got, err := s.rel(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "/", GuestDir, GuestDir + "/", GuestDir + "/..", GuestDir + "/../x", GuestDir + "x/y", "sandbox/shm", "/etc/passwd"} {
		var invalid *InvalidError
		if got, err := s.rel(in); !errors.As(err, &invalid) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		if got := s.Translate(in); got != in {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"noexec", "nosuid,nodev", "ro", "rw", "mode=1777", "size=64m", "fsgid=77"}, false)
	if err != nil || o.flags != unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV || o.data != "mode=1777,size=64m" || o.gid != 77 || o.mode != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = parseOptions([]string{"mode=2775"}, true); err != nil || o.mode != 0o775|fs.ModeSetgid || o.data != "" || o.gid != -1 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"remount", "bind", "rshared", "fsgid=-1", "fsgid=", "fsgid=99999999999", "a\nb"} {
		if _, err := parseOptions([]string{bad}, false); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	if _, err := parseOptions([]string{"mode=999"}, true); err == nil {
		t.Error("a mode that is not octal was accepted")
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("noexec,nosuid,mode=1777,size=1", true)
	f.Add("fsgid=3", false)
	f.Fuzz(func(t *testing.T, s string, own bool) {
		o, err := parseOptions([]string{s}, own)
		if err != nil {
			return
		}
		const allowed = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC |
			unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME | unix.MS_STRICTATIME
		if o.flags&^allowed != 0 {
			t.Fatalf("%q sets flags %#x", s, o.flags)
		}
		if strings.ContainsAny(o.data, "\x00\n") {
			t.Fatalf("%q passes %q to the filesystem", s, o.data)
		}
		again, err := parseOptions([]string{o.data}, own)
		if err != nil || again.data != o.data || again.flags != 0 {
			t.Fatalf("%q: data %q is not data again: %+v, %v", s, o.data, again, err)
		}
	})
}

func TestIsPause(t *testing.T) {
	tests := []struct {
		name    string
		storage *agent.Storage
		want    bool
		fails   bool
	}{
		{"by source", &agent.Storage{Source: "pause"}, true, false},
		{"by containerd's annotation", &agent.Storage{Source: "x", DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}`}}, true, false},
		{"by CRI-O's annotation", &agent.Storage{Source: "x", DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri-o.ContainerType":"sandbox"}}`}}, true, false},
		{"container", &agent.Storage{Source: "x", DriverOptions: []string{"other", `image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"container"}}`}}, false, false},
		{"no metadata", &agent.Storage{Source: "x"}, false, false},
		{"malformed", &agent.Storage{Source: "x", DriverOptions: []string{"image_guest_pull={"}}, false, true},
		{"trailing", &agent.Storage{Source: "x", DriverOptions: []string{"image_guest_pull={}{}"}}, false, true},
		{"too large", &agent.Storage{Source: "x", DriverOptions: []string{"image_guest_pull=" + strings.Repeat(" ", maxMetadata) + "{}"}}, false, true},
	}
	for _, tt := range tests {
		got, err := isPause(tt.storage)
		if got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

func FuzzGuestPullMetadata(f *testing.F) {
	f.Add(`{"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}`)
	f.Add(`{"metadata":null}`)
	f.Fuzz(func(t *testing.T, raw string) {
		pause, err := isPause(&agent.Storage{Source: "registry.example/app", DriverOptions: []string{"image_guest_pull=" + raw}})
		if pause && (err != nil || !strings.Contains(raw, "sandbox") && !strings.Contains(raw, `\u`)) {
			t.Fatalf("%q is taken for a sandbox: %v", raw, err)
		}
	})
}

func TestStorages(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	ctx := t.Context()
	mem := &agent.Storage{
		Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", Options: []string{"size=1m", "mode=0750", "fsgid=1234", "nosuid", "nodev"},
		MountPoint: GuestDir + "/sandbox/ephemeral/mem",
	}
	scratch := &agent.Storage{
		Driver: "local", Options: []string{"mode=0777"}, FsGroup: &agent.FSGroup{GroupId: 4321},
		MountPoint: GuestDir + "/shared/containers/s1/rootfs/local/scratch",
	}
	bound := &agent.Storage{Driver: "bind", Source: mem.MountPoint, Options: []string{"ro"}, MountPoint: GuestDir + "/sandbox/seen"}
	a, err := s.Prepare(ctx, "a1", []*agent.Storage{mem, scratch, bound})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Prepare(ctx, "b1", []*agent.Storage{mem, scratch})
	if err != nil {
		t.Fatal(err)
	}
	checkOwner(t, s.Translate(mem.MountPoint), 1234, fs.ModeSetgid|0o770)
	checkOwner(t, s.Translate(scratch.MountPoint), 4321, fs.ModeSetgid|0o777)
	if err := os.WriteFile(s.Translate(mem.MountPoint)+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Translate(bound.MountPoint) + "/f"); err != nil {
		t.Errorf("through the bind mount: %v", err)
	}
	if err := os.WriteFile(s.Translate(bound.MountPoint)+"/g", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write through a read-only bind mount: %v", err)
	}
	if kept, err := Lasting(s.Translate(bound.MountPoint)); err != nil || !slices.Equal(kept, []string{"nosuid", "nodev", "ro"}) {
		t.Errorf("the bind mount is %v, %v", kept, err)
	}
	if err := a.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Translate(mem.MountPoint) + "/f"); err != nil {
		t.Errorf("a storage in use was undone: %v", err)
	}
	if err := errors.Join(b.Release(ctx), b.Release(ctx)); err != nil { // twice does no harm
		t.Fatal(err)
	}
	for _, st := range []*agent.Storage{mem, scratch, bound} {
		if _, err := os.Stat(s.Translate(st.MountPoint)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", st.MountPoint, err)
		}
	}
}

func checkOwner(t *testing.T, path string, gid uint32, mode fs.FileMode) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := fi.Sys().(*unixStat).Gid; got != gid || fi.Mode()&^fs.ModeDir != mode {
		t.Errorf("%s: group %d, mode %v; want %d, %v", path, got, fi.Mode(), gid, mode)
	}
}

// A symbolic link that the host has placed must not lead a mount out of the
// state directory.
func TestStoragesFollowNoLinkOut(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	outside := t.TempDir()
	if err := s.CopyFile(&agent.CopyFileRequest{Path: GuestDir + "/shared/containers/link", FileMode: unix.S_IFLNK | 0o777, Data: []byte(outside)}); err != nil {
		t.Fatal(err)
	}
	if err := s.root.MkdirAll("sandbox/from", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, st := range []*agent.Storage{
		{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: GuestDir + "/shared/containers/link"},
		{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: GuestDir + "/shared/containers/link/sub"},
		{Driver: "local", MountPoint: GuestDir + "/shared/containers/link/sub"},
		{Driver: "bind", Source: GuestDir + "/shared/containers/link", MountPoint: GuestDir + "/sandbox/x"},
		{Driver: "bind", Source: GuestDir + "/sandbox/from", MountPoint: GuestDir + "/shared/containers/link/sub"},
	} {
		if _, err := s.Prepare(t.Context(), "a1", []*agent.Storage{st}); err == nil {
			t.Errorf("%s at %s was made", st.Driver, st.MountPoint)
		}
	}
	if _, err := s.Rootfs(GuestDir + "/shared/containers/link"); err == nil {
		t.Error("a root outside was accepted")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
}

// What the agent relies on lies in the state directory too. The host, which
// writes below shared/containers by CopyFile, must not lay that under it, nor
// reach it through a symbolic link.
func TestStoragesStayInTheirParts(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t)
	if _, err := s.NewBundle("app1"); err != nil {
		t.Fatal(err)
	}
	const written = GuestDir + "/shared/containers/written"
	if err := s.CopyFile(&agent.CopyFileRequest{Path: written, FileMode: unix.S_IFDIR | 0o755}); err != nil {
		t.Fatal(err)
	}
	targets := []string{
		"runtime", "runtime/app1", "journal", "image", "image/layers", "sandbox-ns", "sandbox-ns/x", "app1", "app1/rootfs", "app2/x",
		"shared", "shared/containers", "shared/x", "sandbox",
	}
	for _, kept := range []string{"runtime", "image", "app1"} {
		if err := s.root.MkdirAll(kept, 0o700); err != nil {
			t.Fatal(err)
		}
		// Relative, so that following it would not even leave the state directory.
		if err := s.CopyFile(&agent.CopyFileRequest{Path: GuestDir + "/shared/containers/to-" + kept, FileMode: unix.S_IFLNK | 0o777, Data: []byte("../../" + kept)}); err != nil {
			t.Fatal(err)
		}
		targets = append(targets, "shared/containers/to-"+kept, "shared/containers/to-"+kept+"/x")
	}
	for _, target := range targets {
		for _, st := range []*agent.Storage{
			{Driver: "bind", Source: written, MountPoint: GuestDir + "/" + target},
			{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: GuestDir + "/" + target},
			{Driver: "local", MountPoint: GuestDir + "/" + target},
			{Driver: "bind", Source: GuestDir + "/" + target, MountPoint: GuestDir + "/sandbox/seen"},
		} {
			v, err := s.Prepare(t.Context(), "app1", []*agent.Storage{st})
			if err == nil {
				t.Errorf("%s of %q at %s was made", st.Driver, st.Source, st.MountPoint)
				if err := v.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got, err := s.Rootfs(GuestDir + "/" + target); err == nil {
			t.Errorf("%s became the root %s", target, got)
		}
	}
	for _, gone := range []string{"journal", "app2", "shared/x"} {
		if _, err := s.root.Lstat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made: %v", gone, err)
		}
	}
	if err := s.RemoveBundle("app1"); err != nil {
		t.Error(err)
	}
}

// Users of one storage that come at the same time get one storage, and it is
// undone once, after the last.
func TestTableCounts(t *testing.T) {
	table := table{entries: map[string]*entry{}}
	var mu sync.Mutex
	made, undone, present := 0, 0, false
	mk := func(context.Context) (undo, error) {
		mu.Lock()
		defer mu.Unlock()
		if present {
			t.Error("made twice")
		}
		made++
		present = true
		return func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			undone++
			present = false
			return nil
		}, nil
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			e, err := table.acquire(t.Context(), "k", "d", mk)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if !present {
				t.Error("in use but not there")
			}
			mu.Unlock()
			if err := table.release(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made != undone || made == 0 || len(table.entries) != 0 {
		t.Errorf("made %d, undone %d, left %d", made, undone, len(table.entries))
	}
}

func TestTableFailures(t *testing.T) {
	table := table{entries: map[string]*entry{}}
	ctx := t.Context()
	boom := errors.New("boom")
	if _, err := table.acquire(ctx, "k", "d", func(context.Context) (undo, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	fail := true
	e, err := table.acquire(ctx, "k", "d", func(context.Context) (undo, error) {
		return func(context.Context) error {
			if fail {
				return boom
			}
			return nil
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.acquire(ctx, "k", "other", nil); err == nil {
		t.Error("one storage with two drivers")
	}
	if err := table.release(ctx, e); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	fail = false
	if err := table.release(ctx, e); err != nil || len(table.entries) != 0 {
		t.Errorf("second try: %v, %d left", err, len(table.entries))
	}
	if err := table.release(ctx, e); err != nil {
		t.Errorf("a release too many: %v", err)
	}
}

// endingDisks end the sandbox while a disk is looked for.
type endingDisks struct {
	disks
	end func()
}

func (d endingDisks) Find(ctx context.Context, a device.Address) (device.Block, error) {
	d.end()
	return d.disks.Find(ctx, a)
}

// What is set up while the sandbox ends is undone: nobody comes to do it later.
func TestEndWhileSettingUp(t *testing.T) {
	needsRoot(t)
	b := newVolume(t)
	var s *Sandbox
	s = newTestSandbox(t, func(c *Config) {
		c.Devices = endingDisks{disks{"02/00": b}, func() {
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}}
	})
	if err := s.Setup(t.Context(), Request{Hostname: "pod1", Storages: []*agent.Storage{onDisk()}}); err == nil {
		t.Error("a sandbox that has ended was set up")
	}
	if left, err := mountsBelow(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := b.Unused(); err != nil {
		t.Error(err)
	}
}

// A making that panics keeps nobody waiting, and nobody from another try.
func TestTablePanic(t *testing.T) {
	table := table{entries: map[string]*entry{}}
	func() {
		defer func() { _ = recover() }()
		_, _ = table.acquire(t.Context(), "k", "d", func(context.Context) (undo, error) { panic("a bug") })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	made, undone := false, false
	e, err := table.acquire(ctx, "k", "d", func(context.Context) (undo, error) {
		made = true
		return func(context.Context) error { undone = true; return nil }, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.release(t.Context(), e); err != nil || !made || !undone {
		t.Errorf("made %v, undone %v: %v", made, undone, err)
	}
}

func TestSetup(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	system := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(system, []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newTestSandbox(t, func(c *Config) { c.ResolvConf = system })
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Setup(t.Context(), Request{Hostname: "pod1", DNS: []string{"nameserver 10.0.0.10", ""}}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("the agent's own host name became %q, %v", after, err)
	}
	if raw, err := os.ReadFile(system); err != nil || string(raw) != "nameserver 10.0.0.10\n" {
		t.Errorf("resolv.conf in force: %q, %v", raw, err)
	}
	var own, shared unix.Stat_t
	for _, path := range []string{s.IPCNamespace(), s.UTSNamespace()} {
		if err := errors.Join(unix.Stat("/proc/self/ns/"+filepath.Base(path), &own), unix.Stat(path, &shared)); err != nil {
			t.Fatal(err)
		}
		if own.Ino == shared.Ino {
			t.Errorf("%s is the agent's own namespace", path)
		}
	}
	if err := s.SharePID(holder{pid: os.Getpid(), alive: os.ErrProcessDone}); !errors.Is(err, os.ErrProcessDone) || s.PIDNamespace() != "" {
		t.Errorf("of a process that has ended: %v, %q", err, s.PIDNamespace())
	}
	if err := s.SharePID(holder{pid: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if err := s.SharePID(holder{pid: 1}); err != nil || s.PIDNamespace() == "" {
		t.Errorf("second: %v, %q", err, s.PIDNamespace())
	}
	bad := newTestSandbox(t)
	if err := bad.Setup(t.Context(), Request{DNS: []string{"a\nb"}}); err == nil {
		t.Error("a line with a newline was accepted")
	}
	if left, err := mountsBelow(bad.dir); err != nil || len(left) > 0 {
		t.Errorf("a failed setup left %v, %v", left, err)
	}
}

func TestBundles(t *testing.T) {
	s := newTestSandbox(t)
	path, err := s.NewBundle("app1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewBundle("app1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("twice: %v", err)
	}
	if _, err := s.NewBundle("../app2"); !errors.Is(err, ErrBadID) {
		t.Errorf("outside: %v", err)
	}
	if os.Getuid() == 0 {
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveBundle("app1"); err == nil {
			t.Error("a bundle with a mount was removed")
		}
		if err := unmount(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveBundle("app1"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveBundle("app1"); err != nil {
		t.Errorf("again: %v", err)
	}
	if names := Drivers(); !slices.Contains(names, "image_guest_pull") {
		t.Error(names)
	}
}
