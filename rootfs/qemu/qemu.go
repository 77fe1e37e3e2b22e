// Package qemu runs a guest image in QEMU: measured into a software TPM, with its
// root, its init-data and a channel to the agent. It is what `rootfs run` and the
// tests of booted guests use; a Kata runtime has a hypervisor layer of its own.
//
// The guest's devices are those that a Kata runtime gives it, as far as QEMU has
// them without privileges: vsock needs a driver of the host's kernel, so the
// agent is reached over a virtio-serial port ([Channel]). Nothing needs root.
//
// A machine belongs to the caller of [Start]: it lives until [Machine.Stop], or
// until the guest switches itself off ([Machine.Wait]).
package qemu

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
)

// Channel is the name of the port over which the agent serves: in the guest's
// command line, agent.server_addr=virtio-serial://agent.0.
const Channel = "agent.0"

// Gateway is the address at which a guest with a network reaches its host, and
// Network the parameter of its command line that sets up its own end.
const (
	Gateway = "10.0.2.2"
	Network = "ip=10.0.2.15::" + Gateway + ":255.255.255.0::eth0:none:10.0.2.3 net.ifnames=0"
)

// Config says what a machine is made of. Paths are files of the host.
type Config struct {
	// Kernel, Initrd and CommandLine, or UKI, or Bootable, a disk with an EFI
	// partition, are what is booted.
	Kernel, Initrd, CommandLine string
	UKI, Bootable               string
	// Disk is the root, read-only; empty for none.
	Disk string
	// InitData is the document, as TOML; the machine's disk is made of it. Empty
	// for none.
	InitData string
	// HoldInitData stops the machine once, when its init first reads that disk and has
	// seen nothing of it ([Machine.Held]).
	HoldInitData bool
	// Firmware is an OVMF that measures what it starts; empty for QEMU's own BIOS,
	// which measures nothing of use.
	Firmware string
	// Variables is a blank store of variables for the firmware (OVMF_VARS_4M.fd in
	// Debian's package, with OVMF_CODE_4M.fd as the firmware), of which the machine
	// gets a copy; empty for a firmware that has one in itself.
	Variables string
	// SecureBoot is enrolled in that copy: the machine starts signed images only.
	SecureBoot *boot.SecureBoot
	// SMM lets the firmware alone change the variables, in System Management Mode; else
	// the guest's system may, those of Secure Boot too. The firmware must be built for
	// it (OVMF_CODE_4M.secboot.fd in Debian's package).
	SMM bool
	// TPM is the state directory of a software TPM (see [Manufacture]); empty for
	// no TPM. One machine at a time may use it.
	TPM string
	// Network gives the guest a network of its own, with the host at [Gateway]. The
	// host's loopback services are in its reach there, so a guest that is to
	// reach nothing else has none.
	Network bool

	Memory       int // MiB; 0 is 512
	VCPUs        int // 0 is 1
	Accelerator  string
	RestoreFrom  string // snapshot to go on from; everything else as it was saved
	Program      string // empty: qemu-system-x86_64
	Dir          string // of sockets and logs; it must exist, and its path be short
	ExtraDevices []string
	// Reached is told of the phases of a start as they are over; nil for nobody.
	Reached func(phase string)
}

const (
	defaultProgram = "qemu-system-x86_64"
	defaultMemory  = 512
)

func (c Config) withDefaults() Config {
	if c.Program == "" {
		c.Program = defaultProgram
	}
	if c.Memory == 0 {
		c.Memory = defaultMemory
	}
	if c.VCPUs == 0 {
		c.VCPUs = 1
	}
	return c
}

// started counts what is to be booted.
func (c Config) started() (n int) {
	for _, path := range []string{c.Kernel, c.UKI, c.Bootable} {
		if path != "" {
			n++
		}
	}
	return n
}

// maxSocket is the longest path of a unix socket.
const maxSocket = 107

func (c Config) check() error {
	switch {
	case c.started() != 1:
		return errors.New("one of a kernel, a unified kernel image and a disk with an EFI partition is needed")
	case c.Kernel == "" && (c.Initrd != "" || c.CommandLine != "" || c.Disk != ""):
		return errors.New("a unified kernel image brings its initrd and its command line, and a disk that firmware starts its root")
	case c.Kernel == "" && c.Firmware == "":
		return errors.New("a unified kernel image needs a firmware")
	case c.SecureBoot != nil && c.Variables == "":
		return errors.New("keys for Secure Boot need a store of variables")
	case c.Variables != "" && c.Firmware == "":
		return errors.New("a store of variables needs a firmware")
	case c.SMM && c.Variables == "":
		return errors.New("without a store of variables there is nothing for SMM to keep")
	case c.HoldInitData && c.InitData == "":
		return errors.New("there is no init-data to hold the machine at")
	case c.Accelerator != KVM && c.Accelerator != TCG:
		return fmt.Errorf("accelerator %q: want %s or %s", c.Accelerator, KVM, TCG)
	case !filepath.IsAbs(c.Dir) || len(c.path("console.sock")) > maxSocket:
		return fmt.Errorf("the directory %q must be absolute and short", c.Dir)
	}
	for _, path := range []string{c.Kernel, c.Initrd, c.UKI, c.Bootable, c.Disk, c.Firmware, c.Variables, c.TPM} {
		if strings.ContainsAny(path, ",\n") {
			return fmt.Errorf("QEMU cannot be told of the path %q", path)
		}
	}
	return nil
}

// Files of a machine's directory.
func (c Config) path(name string) string { return filepath.Join(c.Dir, name) }

const (
	fileConsole  = "console.log"
	fileChannel  = "agent.sock"
	fileMonitor  = "qmp.sock"
	fileTPM      = "tpm.sock"
	fileInitData = "initdata.img"
	fileLog      = "qemu.log"
	dirESP       = "esp" // that QEMU makes a disk of

	fileVariables = "variables.fd"
)

// arguments is QEMU's command line. A restored machine needs the same.
func (c Config) arguments() []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", c.machine(), "-cpu", "max", "-m", strconv.Itoa(c.Memory), "-smp", strconv.Itoa(c.VCPUs),
		"-chardev", "file,id=console,path=" + c.path(fileConsole), "-serial", "chardev:console",
		"-qmp", "unix:" + c.path(fileMonitor) + ",server=on,wait=off",
		"-device", "virtio-rng-pci",
		// A guest that goes on from a snapshot is told that it is another one, so
		// that it does not repeat its random numbers.
		"-device", "vmgenid,guid=auto",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path=" + c.path(fileChannel) + ",server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=" + Channel,
	}
	if c.SMM {
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	switch {
	case c.Variables != "":
		args = append(args, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+c.Firmware, "-drive", "if=pflash,unit=1,format=raw,file="+c.path(fileVariables))
	case c.Firmware != "":
		args = append(args, "-bios", c.Firmware)
	}
	switch {
	case c.Kernel != "":
		args = append(args, "-kernel", c.Kernel, "-append", c.CommandLine)
	case c.Bootable != "":
		args = append(args, "-drive", "if=none,format=raw,readonly=on,id=boot,file="+c.Bootable, "-device", "virtio-blk-pci,drive=boot,bootindex=0")
	default:
		args = append(args, "-drive", "if=none,format=raw,readonly=on,id=esp,file=fat:"+c.path(dirESP), "-device", "virtio-blk-pci,drive=esp,bootindex=0")
	}
	if c.Initrd != "" {
		args = append(args, "-initrd", c.Initrd)
	}
	for _, disk := range c.disks() {
		id := strings.TrimSuffix(filepath.Base(disk), filepath.Ext(disk))
		file := "file=" + disk
		if c.HoldInitData && disk == c.path(fileInitData) {
			file = heldAt(disk)
		}
		args = append(args, "-drive", "if=none,format=raw,readonly=on,id="+id+","+file, "-device", "virtio-blk-pci,drive="+id)
	}
	if c.TPM != "" {
		args = append(args, "-chardev", "socket,id=tpm,path="+c.path(fileTPM), "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0")
	}
	if c.Network {
		args = append(args, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
	}
	if c.RestoreFrom != "" {
		args = append(args, "-incoming", "defer")
	}
	return append(args, c.ExtraDevices...)
}

func (c Config) machine() string {
	kind := "q35,accel=" + c.Accelerator
	if c.SMM {
		kind += ",smm=on"
	}
	return kind
}

// disks lists them in the order in which the guest finds them.
func (c Config) disks() (list []string) {
	if c.Disk != "" {
		list = append(list, c.Disk)
	}
	if c.InitData != "" {
		list = append(list, c.path(fileInitData))
	}
	return list
}
