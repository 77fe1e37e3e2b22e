package qemu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The accelerators of QEMU that are used: the processor's, and none.
const (
	KVM = "kvm"
	TCG = "tcg"
)

// probeTime is how long a kernel may take to its first line and its end under
// KVM. It takes a fraction of it, where KVM works.
const probeTime = 4 * time.Second

// Accelerator says whether KVM works here: not whether there is a device, but
// whether a kernel comes up under it, for there are hosts that have the one and
// cannot do the other. Without a root the kernel ends by itself. Where there is no
// kernel to try ("": firmware starts the image), nobody knows, and it does not.
func Accelerator(ctx context.Context, program, kernel string) string {
	if program == "" {
		program = defaultProgram
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return TCG
	}
	_ = f.Close()
	if kernel == "" {
		return TCG
	}
	dir, err := os.MkdirTemp("", "probe-")
	if err != nil {
		return TCG
	}
	defer func() { _ = os.RemoveAll(dir) }()
	console := filepath.Join(dir, "console")
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", //nolint:gosec // the caller's program
		"-machine", "q35,accel=kvm", "-cpu", "max", "-m", "256", "-serial", "file:"+console,
		"-kernel", kernel, "-append", "console=ttyS0 panic=-1 reboot=t")
	if err := cmd.Run(); err != nil {
		return TCG
	}
	text, err := os.ReadFile(console)
	if errors.Is(err, os.ErrNotExist) || !bytes.Contains(text, []byte("Kernel panic")) {
		return TCG
	}
	return KVM
}
