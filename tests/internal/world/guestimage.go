package world

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	return w.apply(ctx, "pod.yaml", fmt.Sprintf("kind: RefValue\nmetadata: {name: pod_pcr08}\nspec: {value: [\"%x\"]}\n", tpm.InitDataValue(document.Digest())))
}

// apply gives the broker documents, which it keeps in a file of the stage's.
func (w *World) apply(ctx context.Context, name, documents string) error {
	if err := os.WriteFile(w.Path(name), []byte(documents), 0o600); err != nil {
		return err
	}
	_, err := w.Broker.Ctl(ctx, "apply", "-f", w.Path(name))
	return err
}

// KnowMeasured has the machine's kernel measure the files that it executes and that
// root opens, and what it says of itself, and makes what is foreseen of that, the agent
// that was built and the kernel's version what measured.rego wants. Of its command line
// the image's own document knows nothing.
func (f *Fleet) KnowMeasured(ctx context.Context, agent string) error {
	f.machine.CommandLine += " ima_policy=tcb|critical_data"
	predicted, err := f.Run(ctx, "measure", "predict", "--platform", "tpm", "--firmware", Firmware, "--edition", "202211",
		"--kernel", f.machine.Kernel, "--initrd", f.machine.Initrd, "--cmdline", f.machine.CommandLine,
		"--memory", fmt.Sprintf("%dM", machineMemory), "-o", "refvalue")
	if err != nil {
		return err
	}
	if err := f.apply(ctx, "measured.yaml", strings.ReplaceAll(predicted, "tpm_pcr", "measured_pcr")); err != nil {
		return err
	}
	release, err := kernelRelease(f.machine.Kernel)
	if err != nil {
		return err
	}
	if err := f.knowDigest(ctx, "kernel", release); err != nil {
		return err
	}
	return f.KnowAgent(ctx, agent)
}

// kernelRelease reads what uname will say out of a kernel's file (Linux,
// arch/x86/boot.rst, kernel_version).
func kernelRelease(file string) ([]byte, error) {
	const field, base = 0x20e, 0x200
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(raw) < field+2 {
		return nil, fmt.Errorf("%s is no kernel", file)
	}
	at := base + int(binary.LittleEndian.Uint16(raw[field:]))
	if len(raw) < at {
		return nil, fmt.Errorf("%s is no kernel", file)
	}
	release, _, found := bytes.Cut(raw[at:], []byte(" "))
	if !found {
		return nil, fmt.Errorf("%s says no version", file)
	}
	return release, nil
}

// KnowAgent makes the digest of a file, and no other, that of the agent.
func (f *Fleet) KnowAgent(ctx context.Context, agent string) error {
	raw, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	return f.knowDigest(ctx, "agent", raw)
}

// knowDigest makes the digest of some bytes, and no other, a reference value.
func (f *Fleet) knowDigest(ctx context.Context, name string, raw []byte) error {
	return f.apply(ctx, name+".yaml", fmt.Sprintf("kind: RefValue\nmetadata: {name: %s}\nspec: {value: [\"sha256:%x\"]}\n", name, sha256.Sum256(raw)))
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
