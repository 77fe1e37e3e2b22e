package world

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// unforeseen runs a machine that must be refused for a register.
func (f *Fleet) unforeseen(ctx context.Context, cfg qemu.Config, register string) (Refusal, error) {
	_, err := f.RunImage(ctx, cfg)
	r, err := f.Refused(ctx, err, fault.PolicyDenied)
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
	cfg.Initrd = f.Path("other-initrd.img")
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
	file := f.Path("other-initdata.toml")
	text = strings.Replace(text, "[kbc]", "[vouchsafe]\ninsecure_no_agent_policy = true\n\n[kbc]", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return Refusal{}, err
	}
	return f.unforeseen(ctx, f.Unread(file), "pcr08")
}

// OtherMachineTPM boots what was foreseen, on a machine whose TPM nobody enrolled,
// though its manufacturer is the same. It cannot go on from a saved machine: swtpm takes
// no registers that were saved with another endorsement seed.
func (f *Fleet) OtherMachineTPM(ctx context.Context) (Refusal, error) {
	other, err := f.NewTPM(ctx, "stranger")
	if err != nil {
		return Refusal{}, err
	}
	cfg := f.Config()
	cfg.TPM = other
	_, err = f.RunImage(ctx, cfg)
	r, err := f.Refused(ctx, err, fault.RootUntrusted)
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
