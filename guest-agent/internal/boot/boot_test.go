package boot

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// The steps themselves need a machine of their own: tests/boot has one.

func TestOnlyTheInitOfAMachine(t *testing.T) {
	if Is([]string{"/init"}) {
		t.Error("a test is taken for the init of a machine")
	}
	if os.Getpid() != 1 && inFirstNamespace() != (firstNamespaceOf(t) == firstNamespace) {
		t.Error("the detached proc disagrees with the one that is mounted")
	}
}

func firstNamespaceOf(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Skipf("no /proc to compare with: %v", err)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	return link
}

// What programs call their own streams leads there, and is made once.
func TestLinkStreams(t *testing.T) {
	dev := t.TempDir()
	for range 2 {
		if err := linkStreams(dev); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if got, err := os.Readlink(filepath.Join(dev, name)); err != nil || got != want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestParse(t *testing.T) {
	p, err := parse("quiet ip=10.0.2.15::10.0.2.2:255.255.255.0:ignored:eth0:none:10.0.2.3 vouchsafe.insecure_module_loading=true")
	if err != nil {
		t.Fatal(err)
	}
	want := &network{
		address: netip.MustParsePrefix("10.0.2.15/24"), gateway: netip.MustParseAddr("10.0.2.2"), device: "eth0",
		dns: []netip.Addr{netip.MustParseAddr("10.0.2.3")},
	}
	if !p.keepModules || !reflect.DeepEqual(p.network, want) {
		t.Errorf("%+v %+v", p, p.network)
	}
	for line, want := range map[string]*network{
		"ip=dhcp":                     {lend: true},
		"ip=any vouchsafe.dhcp_dns=0": {lend: true},
		"vouchsafe.dhcp_dns=1 ip=on":  {lend: true, lendDNS: true},
		"ip=:::::eth1:dhcp:9.9.9.9":   {lend: true, device: "eth1", dns: []netip.Addr{netip.MustParseAddr("9.9.9.9")}},
		"ip=::::host::on":             {lend: true},
		"vouchsafe.dhcp_dns=1 ip=off": nil,
	} {
		if p, err := parse(line); err != nil || !reflect.DeepEqual(p.network, want) {
			t.Errorf("%q: %+v, %v", line, p.network, err)
		}
	}
	for _, nothing := range []string{"", "quiet", "ip=off", "ip="} {
		if p, err := parse(nothing); err != nil || p.network != nil || p.keepModules {
			t.Errorf("%q: %+v, %v", nothing, p, err)
		}
	}
	for _, bad := range []string{
		"ip=10.0.2.15", "ip=bootp", "ip=10.0.2.15::::::dhcp", "ip=:::255.255.255.0::eth0:dhcp", "ip=::10.0.2.2::::any", "ip=::::::dhcp:x", "ip=::::::rarp", "ip=10.0.2.15:::255.0.255.0", "ip=::1:::255.255.255.0", "ip=10.0.2.15::x:255.255.255.0",
		"ip=10.0.2.15:::255.255.255.0:::dhcp", "vouchsafe.dhcp_dns=perhaps", "ip=10.0.2.15:::255.255.255.0::::x", "ip=1:2:3:4:5:6:7:8:9:10",
		"vouchsafe.insecure_module_loading=perhaps", strings.Repeat("x", maxCommandLine+1),
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%.64q is accepted", bad)
		}
	}
}

// Hostile or not, parsing a command line ends.
func FuzzParse(f *testing.F) {
	f.Add(`quiet ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:none`)
	f.Add(`dm-mod.create="a,,,ro,0 8 verity" ip=:::::::`)
	f.Add("ip=:::::eth0:dhcp:9.9.9.9 vouchsafe.dhcp_dns=1")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = parse(text)
	})
}

func TestParseModules(t *testing.T) {
	got, err := parseModules("/lib/modules/a.ko\n-/lib/modules/b.ko.xz\n")
	if want := []module{{"/lib/modules/a.ko", false}, {"/lib/modules/b.ko.xz", true}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"a.ko", "/lib/../a.ko", "/lib//a.ko", "-", "\n", "# comment"} {
		if _, err := parseModules(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// One module that does not load keeps none of the others out, and all that must are
// named.
func TestLoadEach(t *testing.T) {
	var asked []string
	load := func(file string) error {
		asked = append(asked, filepath.Base(file))
		switch filepath.Base(file) {
		case "xts.ko", "virtiofs.ko.xz":
			return unix.EPERM
		case "dm-crypt.ko":
			return os.ErrNotExist
		case "sev_guest.ko":
			return unix.ENODEV
		}
		return nil
	}
	list, err := parseModules("/m/xts.ko\n-/m/virtiofs.ko.xz\n/m/dm-crypt.ko\n-/m/sev_guest.ko\n/m/overlay.ko\n")
	if err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	err = loadEach(t.Context(), list, load, slog.New(slog.NewJSONHandler(&console, nil)))
	m, ok := errors.AsType[*driver.MissingError](err)
	if !ok || !slices.Equal(m.Modules, []string{"xts", "dm_crypt"}) || !m.Failed || !errors.Is(err, unix.EPERM) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if len(asked) != len(list) {
		t.Errorf("of %d modules %v were tried", len(list), asked)
	}
	if text := console.String(); !strings.Contains(text, "virtiofs") || strings.Contains(text, "sev_guest") {
		t.Errorf("the console says %s", text)
	}
	if err := loadEach(t.Context(), []module{{"/m/virtiofs.ko.xz", true}, {"/m/overlay.ko", false}}, load, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("only what may be absent is: %v", err)
	}
}

func TestModuleNames(t *testing.T) {
	for file, want := range map[string]string{"/a/dm-mod.ko": "dm_mod", "/a/sha256-ssse3.ko.xz": "sha256_ssse3"} {
		if got := (module{file: file}).name(); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
	if (module{file: "/a/no-such-module.ko"}).loaded() {
		t.Error("a module that there is not is loaded")
	}
}

// A driver whose device is there cannot wait, and neither can one of which nothing
// is known.
func TestDevicePresent(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "sys/bus/virtio/devices/virtio0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "modalias"), []byte("virtio:d00000002v00001AF4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "proc/cpuinfo"), 0o755); err != nil { // nothing that can be read
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"virtio_blk": true, "virtio_scsi": false, "sev_guest": false, "tdx_guest": true} {
		if got := idle[name].present(root); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !atOnce(module{file: "/a/tsm.ko"}) {
		t.Error("a module that is for no device waits")
	}
}

// Without a list for the kernel that runs there is nothing to load.
func TestNoModulesForThisKernel(t *testing.T) {
	file, err := listFile("load")
	if release := strings.TrimSpace(string(mustRead(t, "/proc/sys/kernel/osrelease"))); err != nil || file != "/usr/lib/modules/"+release+"/load" {
		t.Errorf("%s, %v", file, err)
	}
	if err := loadModules(t.Context(), always, slog.New(slog.DiscardHandler), "no-such-list"); err != nil {
		t.Error(err)
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParseVerity(t *testing.T) {
	const params = "1 /dev/vda1 /dev/vda2 4096 4096 2 0 sha256 aa -"
	p, err := parse(`dm-mod.create="dm-verity,,,ro,0 16 verity ` + params + `" root=/dev/dm-0 rootfstype=ext4`)
	want := &verity{"dm-verity", dm.Target{Kind: "verity", Sectors: 16, Params: params, ReadOnly: true}, "ext4"}
	if err != nil || !reflect.DeepEqual(p.verity, want) {
		t.Errorf("%+v, %v", p.verity, err)
	}
	for _, bad := range []string{
		"", "x", ",,,ro,0 16 verity " + params, "x,,,rw,0 16 verity " + params, "x,,,ro,8 16 verity " + params, "x,,,ro,0 -1 verity " + params,
		"x,,,ro,0 16 linear /dev/vda 0", "x,,,ro,0 16 verity " + params + ",16 16 linear /dev/vda 0", "x,,,ro,0 16 verity " + params + ";y,,,ro,0 1 zero",
	} {
		if _, err := parseVerity(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestFindInitData(t *testing.T) {
	const text = "version = \"0.1.0\"\n"
	var device bytes.Buffer
	if err := initdata.WriteDevice(&device, []byte(text)); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(device.Bytes())
	damaged[30] ^= 1
	for name, tt := range map[string]struct {
		disks map[string][]byte
		want  string
		fails error
	}{
		"none":         {disks: map[string][]byte{"vda": make([]byte, 4096), "vdb": nil}},
		"second disk":  {disks: map[string][]byte{"vda": make([]byte, 4096), "vdb": device.Bytes()}, want: text},
		"scsi":         {disks: map[string][]byte{"sda": device.Bytes()}, want: text},
		"not a disk":   {disks: map[string][]byte{"loop0": device.Bytes()}},
		"two":          {disks: map[string][]byte{"vda": device.Bytes(), "vdb": device.Bytes()}, fails: errTwice},
		"damaged":      {disks: map[string][]byte{"vda": damaged}, fails: errAny},
		"truncated":    {disks: map[string][]byte{"vda": device.Bytes()[:20]}, fails: errAny},
		"disk is gone": {disks: map[string][]byte{"vda-without-node": nil}, fails: os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			block, dev := t.TempDir(), t.TempDir()
			for disk, content := range tt.disks {
				if err := os.Mkdir(filepath.Join(block, disk), 0o755); err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(disk, "without-node") {
					continue
				}
				if err := os.WriteFile(filepath.Join(dev, disk), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := findInitData(block, dev)
			if string(got) != tt.want || (err == nil) != (tt.fails == nil) || err != nil && !errors.Is(tt.fails, errAny) && !errors.Is(err, tt.fails) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if got, err := findInitData(filepath.Join(t.TempDir(), "none"), "/dev"); got != nil || err != nil {
		t.Errorf("a kernel without disks: %q, %v", got, err)
	}
}

var errAny = errors.New("any error")
