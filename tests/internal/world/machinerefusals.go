package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// Fleet is machines that the broker knows: an image, a TPM that was enrolled, and
// what was foreseen of both for one pod.
type Fleet struct {
	*World
	Accelerator string
	Guest       GuestImage
	TPM         string // state directory
	InitData    string // file
	Ref         string // of the container's image

	machine qemu.Config
}

// Config is the machine as it was foreseen.
func (f *Fleet) Config() qemu.Config { return f.machine }

// RunImage boots a machine, runs the image in it with a command, or its own if that is
// empty, and returns what the container says until it is done. A refusal on the
// way is the error; the machine is stopped either way.
func (f *Fleet) RunImage(ctx context.Context, cfg qemu.Config, command ...string) (out string, err error) {
	config, err := f.ImageConfig(ctx, f.Ref)
	if err != nil {
		return "", err
	}
	if len(command) > 0 {
		config.Entrypoint, config.Cmd = command, nil
	}
	m, err := f.Boot(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nthe console ends:\n%s", err, tail(m.Console()))
		}
		err = errors.Join(err, m.Stop())
	}()
	if err := m.Kata().Pod(ctx); err != nil {
		return "", err
	}
	if err := m.Kata().Container(ctx, "app", f.Ref, config); err != nil {
		return "", err
	}
	return m.Kata().Output(ctx, "app", "done")
}

// unforeseen runs a machine that must be refused for a register.
func (f *Fleet) unforeseen(ctx context.Context, cfg qemu.Config, register string) (Refusal, error) {
	_, err := f.RunImage(ctx, cfg)
	r, err := f.refused(ctx, err, fault.PolicyDenied)
	if err != nil {
		return r, err
	}
	_, err = r.Finding("tpm." + register)
	return r, err
}

// OtherMachineCommandLine boots with another kernel command line.
func (f *Fleet) OtherMachineCommandLine(ctx context.Context) (Refusal, error) {
	cfg := f.Config()
	cfg.CommandLine += " vouchsafe.insecure_module_loading=true"
	return f.unforeseen(ctx, cfg, "pcr09")
}

// OtherMachineInitrd boots with an initramfs that differs by what the kernel does
// not even read.
func (f *Fleet) OtherMachineInitrd(ctx context.Context) (Refusal, error) {
	cfg := f.Config()
	raw, err := os.ReadFile(cfg.Initrd)
	if err != nil {
		return Refusal{}, err
	}
	cfg.Initrd = f.Path("other-initrd.zst")
	if err := os.WriteFile(cfg.Initrd, append(bytes.Clone(raw), make([]byte, 512)...), 0o600); err != nil {
		return Refusal{}, err
	}
	return f.unforeseen(ctx, cfg, "pcr09")
}

// OtherMachineInitData boots with init-data whose policy lets the host run what it
// likes.
func (f *Fleet) OtherMachineInitData(ctx context.Context) (Refusal, error) {
	raw, err := os.ReadFile(f.InitData)
	if err != nil {
		return Refusal{}, err
	}
	text, _, found := strings.Cut(string(raw), "\"policy.rego\"")
	if !found {
		return Refusal{}, errors.New("the init-data has no policy to take away")
	}
	cfg := f.Config()
	cfg.InitData = f.Path("other-initdata.toml")
	text = strings.Replace(text, "[kbc]", "[vouchsafe]\ninsecure_no_agent_policy = true\n\n[kbc]", 1)
	if err := os.WriteFile(cfg.InitData, []byte(text), 0o600); err != nil {
		return Refusal{}, err
	}
	return f.unforeseen(ctx, cfg, "pcr08")
}

// OtherMachineTPM boots what was foreseen, on a machine whose TPM nobody enrolled,
// though its manufacturer is the same.
func (f *Fleet) OtherMachineTPM(ctx context.Context) (Refusal, error) {
	other, err := f.NewTPM(ctx, "stranger")
	if err != nil {
		return Refusal{}, err
	}
	cfg := f.Config()
	cfg.TPM = other
	_, err = f.RunImage(ctx, cfg)
	r, err := f.refused(ctx, err, fault.RootUntrusted)
	if err != nil {
		return r, err
	}
	_, err = r.Finding("root")
	return r, err
}

// FlippedDisk returns a copy of a root image in which one byte of a file is wrong.
func FlippedDisk(disk, dir string) (string, error) {
	raw, err := os.ReadFile(disk)
	if err != nil {
		return "", err
	}
	// In the agent, the first thing that is read: any text of it that is only there.
	at := bytes.Index(raw, []byte("vouchsafe.insecure_module_loading"))
	if at < 0 {
		return "", errors.New("the image has no agent whose text could be changed")
	}
	raw[at] ^= 1
	out := filepath.Join(dir, "flipped.img")
	return out, os.WriteFile(out, raw, 0o600)
}
