package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// Firmware is what machines are started by (Debian's package ovmf), which the
// image's recipe names too.
const Firmware = "/usr/share/ovmf/OVMF.fd"

// machineMemory is that of the stage's machines in MiB: what direct boot measures
// depends on it.
const machineMemory = 512

// GuestImage is a guest image as `rootfs build` leaves it, with the public key of
// who vouches for its reference values.
type GuestImage struct{ Dir, Key string }

// Config is a machine that boots the image, measured into a TPM.
func (g GuestImage) Config(accelerator, tpm, initData string) (qemu.Config, error) {
	cfg := qemu.Config{
		Firmware: Firmware, TPM: tpm, InitData: initData, Network: true, Memory: machineMemory, Accelerator: accelerator,
	}
	return cfg, cfg.Open(g.Dir)
}

// KnowImage makes what was predicted when an image was built the broker's
// reference values: the signed document that lies beside it, as it is.
func (w *World) KnowImage(ctx context.Context, g GuestImage) error {
	if _, err := w.Broker.Ctl(ctx, "create", "signer", "release", "--key", g.Key, "--prefix", ""); err != nil {
		return err
	}
	_, err := w.Broker.Ctl(ctx, "apply", "-f", filepath.Join(g.Dir, "refvalues.cbor"))
	return err
}

// KnowInitData makes what a machine's PCR 8 will be with this init-data, and no
// other, a reference value.
func (w *World) KnowInitData(ctx context.Context, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	document, err := initdata.Parse(raw)
	if err != nil {
		return err
	}
	value := fmt.Sprintf("kind: RefValue\nmetadata: {name: pod_pcr08}\nspec: {value: [\"%x\"]}\n", tpm.InitDataValue(document.Digest()))
	if err := os.WriteFile(w.Path("pod.yaml"), []byte(value), 0o600); err != nil {
		return err
	}
	_, err = w.Broker.Ctl(ctx, "apply", "-f", w.Path("pod.yaml"))
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
