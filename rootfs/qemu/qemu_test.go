package qemu

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// What a machine does is shown by tests/boot.

func TestCheck(t *testing.T) {
	good := Config{Kernel: "/k", Accelerator: TCG, Dir: "/tmp/d"}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(c *Config){
		"no kernel":                func(c *Config) { c.Kernel = "" },
		"two":                      func(c *Config) { c.UKI = "/u" },
		"an initrd beside a UKI":   func(c *Config) { c.Kernel, c.UKI, c.Firmware, c.Initrd = "", "/u", "/f", "/i" },
		"a UKI without firmware":   func(c *Config) { c.Kernel, c.UKI = "", "/u" },
		"a disk without firmware":  func(c *Config) { c.Kernel, c.Bootable = "", "/d" },
		"a root beside a disk":     func(c *Config) { c.Kernel, c.Bootable, c.Firmware, c.Disk = "", "/d", "/f", "/r" },
		"a store without firmware": func(c *Config) { c.Variables = "/v" },
		"keys without a store":     func(c *Config) { c.Firmware, c.SecureBoot = "/f", &boot.SecureBoot{} },
		"SMM without a store":      func(c *Config) { c.Firmware, c.SMM = "/f", true },
		"held at nothing":          func(c *Config) { c.HoldInitData = true },
		"an accelerator":           func(c *Config) { c.Accelerator = "" },
		"a relative directory":     func(c *Config) { c.Dir = "d" },
		"a long directory":         func(c *Config) { c.Dir = "/" + strings.Repeat("d", maxSocket) },
		"a path that is an option": func(c *Config) { c.Disk = "/disk,readonly=off" },
	} {
		c := good
		change(&c)
		if err := c.check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestArguments(t *testing.T) {
	c := Config{Kernel: "/k", Initrd: "/i", CommandLine: "quiet", Disk: "/root.img", InitData: "/i.toml", TPM: "/tpm", Network: true, Accelerator: TCG, Dir: "/tmp/d", RestoreFrom: "/s"}.withDefaults()
	args := strings.Join(c.arguments(), " ")
	for _, want := range []string{
		"accel=tcg", "-kernel /k -append quiet -initrd /i", "readonly=on,id=root,file=/root.img", "readonly=on,id=initdata,file=/tmp/d/initdata.img",
		"-device tpm-crb", "-netdev user", "-incoming defer", "name=" + Channel, "-m 512",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is missing: %s", want, args)
		}
	}
	if disks := c.disks(); !slices.Equal(disks, []string{"/root.img", "/tmp/d/initdata.img"}) {
		t.Errorf("%q: the root must come first", disks)
	}
	c.HoldInitData = true
	if held := strings.Join(c.arguments(), " "); strings.Count(held, "rerror=stop") != 1 || !strings.Contains(held, "file.image.filename=/tmp/d/initdata.img") {
		t.Errorf("the machine is not held at its init-data: %s", held)
	}
	if args := strings.Join((Config{Kernel: "/k", Accelerator: KVM, Dir: "/d"}).withDefaults().arguments(), " "); strings.Contains(args, "tpm") || strings.Contains(args, "netdev") || strings.Contains(args, "-drive") {
		t.Errorf("a machine has more than it was given: %s", args)
	}
}

// What is missing is told all at once, with where it comes from.
func TestInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Config{}.Installed()
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "qemu-system-x86_64 is not installed: it is in Debian's package qemu-system-x86 ") || strings.Contains(err.Error(), "swtpm") {
		t.Errorf("without QEMU: %v", err)
	}
	err = Config{TPM: "/tpm"}.Installed()
	for _, want := range []string{"package qemu-system-x86 ", "swtpm is not installed", "package swtpm-tools "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing: %v", want, err)
		}
	}
	if err := (Config{Program: "/bin/sh"}).Installed(); err != nil {
		t.Errorf("a program that is there: %v", err)
	}
}

// Firmware that has its variables apart gets both as flash, and starts the disk.
func TestFirmware(t *testing.T) {
	c := Config{Bootable: "/disk.img", Firmware: "/code.fd", Variables: "/vars.fd", InitData: "/i", Accelerator: TCG, Dir: "/tmp/d"}.withDefaults()
	args := strings.Join(c.arguments(), " ")
	for _, want := range []string{
		"if=pflash,unit=0,format=raw,readonly=on,file=/code.fd", "if=pflash,unit=1,format=raw,file=/tmp/d/variables.fd",
		"readonly=on,id=boot,file=/disk.img -device virtio-blk-pci,drive=boot,bootindex=0",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is missing: %s", want, args)
		}
	}
	if strings.Contains(args, "-bios") || strings.Index(args, "id=boot") > strings.Index(args, "id=initdata") {
		t.Errorf("the disk that is started must come first: %s", args)
	}
	if strings.Contains(args, "smm") || strings.Contains(args, "secure") {
		t.Errorf("firmware that is not built for it is kept in SMM: %s", args)
	}
	c.SMM = true
	args = strings.Join(c.arguments(), " ")
	for _, want := range []string{"-machine q35,accel=tcg,smm=on ", "-global driver=cfi.pflash01,property=secure,value=on"} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is missing: %s", want, args)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	var c Config
	if err := c.Open(dir); err == nil {
		t.Error("an empty folder is an image")
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cmdline", "quiet \n")
	if err := c.Open(dir); err != nil || c.CommandLine != "quiet " || c.Disk != "" || c.Kernel != filepath.Join(dir, "vmlinuz") {
		t.Errorf("%+v, %v", c, err)
	}
	write("rootfs.img", "")
	if err := c.Open(dir); err != nil || c.Disk == "" {
		t.Errorf("%+v, %v", c, err)
	}
	write("guest.efi", "")
	var uki Config
	if err := uki.Open(dir); err != nil || uki.UKI == "" || uki.Kernel != "" {
		t.Errorf("%+v, %v", uki, err)
	}
	write("disk.img", "")
	var disk Config
	if err := disk.Open(dir); err != nil || disk.Bootable != filepath.Join(dir, "disk.img") || disk.UKI != "" {
		t.Errorf("%+v, %v", disk, err)
	}
}

// Documents of different length have disks of one size, and are read back.
func TestInitDataDisk(t *testing.T) {
	for _, text := range []string{"", strings.Repeat("version = '0.1.0'\n", 1000)} {
		c := Config{Dir: t.TempDir(), InitData: filepath.Join(t.TempDir(), "initdata.toml")}
		if err := os.WriteFile(c.InitData, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.writeInitData(); err != nil {
			t.Fatal(err)
		}
		disk, err := os.ReadFile(c.path(fileInitData))
		if err != nil || len(disk) != initDataUnit {
			t.Fatalf("%d bytes, %v", len(disk), err)
		}
		if got, err := initdata.ReadDevice(bytes.NewReader(disk)); err != nil || string(got) != text {
			t.Errorf("%.32q, %v", got, err)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, path := range []string{"/tmp/a b", "/tmp/$(x)", "/tmp/it's"} {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+quote(path)).Output()
		if err != nil || string(out) != path {
			t.Errorf("%q becomes %q, %v", path, out, err)
		}
	}
}

// Events come at any time, also between a command and its answer.
func TestMonitor(t *testing.T) {
	ours, theirs := net.Pipe()
	answers := []string{
		`{"QMP": {}}` + "\n" + `{"event": "RESUME"}` + "\n" + `{"return": {"status": "completed"}}`,
		`{"error": {"class": "GenericError", "desc": "no such device"}}`,
		`not JSON`,
	}
	go func() {
		in := bufio.NewReader(theirs)
		for _, a := range answers {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			if _, err := theirs.Write([]byte(a + "\n")); err != nil {
				return
			}
		}
		_ = theirs.Close()
	}()
	m := &monitor{conn: ours, in: bufio.NewReader(ours)}
	var state struct{ Status string }
	if err := m.do(t.Context(), "query-migrate", nil, &state); err != nil || state.Status != "completed" {
		t.Errorf("%+v, %v", state, err)
	}
	if err := m.do(t.Context(), "device_del", map[string]any{"id": "x"}, nil); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("got %v", err)
	}
	for range 2 { // malformed, and then nobody there
		if err := m.do(t.Context(), "stop", nil, nil); err == nil {
			t.Error("nothing answered")
		}
	}
	if err := m.close(); err != nil {
		t.Error(err)
	}
}
