package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// The firmware that machines are started by (Debian's package ovmf), and the
// edition of edk2 that it is.
const (
	Firmware = "/usr/share/ovmf/OVMF.fd"
	edition  = "202211"
)

// machineMemory is that of the stage's machines in MiB: what direct boot measures
// depends on it.
const machineMemory = 512

// GuestImage is a guest image as `rootfs build` leaves it.
type GuestImage struct {
	Kernel, Initrd, CommandLine string
}

// OpenGuestImage reads an image of the initrd form. The stage's machines are reached
// over a port and have a network, which the command line is told behind its own
// words.
func OpenGuestImage(dir string) (GuestImage, error) {
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	return GuestImage{
		Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd.zst"),
		CommandLine: strings.TrimSpace(string(line)) + " agent.server_addr=virtio-serial://" + qemu.Channel + " agent.guest_components_rest_api=all " + qemu.Network,
	}, err
}

// Config is a machine that boots the image, measured into a TPM.
func (g GuestImage) Config(accelerator, tpm, initData string) qemu.Config {
	return qemu.Config{
		Kernel: g.Kernel, Initrd: g.Initrd, CommandLine: g.CommandLine, Firmware: Firmware, TPM: tpm, InitData: initData,
		Network: true, Memory: machineMemory, Accelerator: accelerator,
	}
}

// Foresee predicts what an image and its init-data will measure to, and makes
// that the broker's reference values.
func (w *World) Foresee(ctx context.Context, g GuestImage, initData string) error {
	values, err := w.Run(ctx, "measure", "predict", "--platform", "tpm", "--firmware", Firmware, "--edition", edition,
		"--kernel", g.Kernel, "--initrd", g.Initrd, "--cmdline", g.CommandLine, "--memory", fmt.Sprintf("%dM", machineMemory),
		"--init-data", initData, "-o", "refvalue")
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.Path("foreseen.yaml"), []byte(values), 0o600); err != nil {
		return err
	}
	_, err = w.Broker.Ctl(ctx, "apply", "-f", w.Path("foreseen.yaml"))
	return err
}

// WriteInitData writes the document of a pod for a machine, and returns its file.
func (w *World) WriteInitData(ctx context.Context, label string, pod Pod) (string, error) {
	dir := w.Path("pod-" + label)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	document, err := w.initData(ctx, dir, pod)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "initdata.toml")
	return file, os.WriteFile(file, []byte(document), 0o600)
}
