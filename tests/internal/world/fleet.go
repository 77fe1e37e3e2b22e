package world

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	saved   string // file; empty for none
}

// Config is the machine as it was foreseen.
func (f *Fleet) Config() qemu.Config { return f.machine }

// Save boots the machine once, to where it reads its init-data. Not every machine
// can go on from there: with its registers the saved one has its command line, its
// initramfs, and its TPM with all keys, whatever the state directory holds.
func (f *Fleet) Save(ctx context.Context) error {
	file := f.Path("saved-machine")
	if err := f.SaveUnread(ctx, f.Config(), file); err != nil {
		return fmt.Errorf("save a booted machine: %w", err)
	}
	f.saved = file
	return nil
}

// Booted is the machine as it was foreseen, which goes on from where it was saved,
// if it was.
func (f *Fleet) Booted() qemu.Config {
	cfg := f.machine
	cfg.RestoreFrom = f.saved
	return cfg
}

// DiskSlot is the PCI path of what AddDisk attaches.
const DiskSlot = "10"

// AddDisk gives the machine an empty disk that it may write, and returns its file.
func (f *Fleet) AddDisk(size int64) (string, error) {
	file := f.Path("disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return "", err
	}
	f.machine.ExtraDevices = append(f.machine.ExtraDevices,
		"-drive", "if=none,format=raw,id=disk,file="+file, "-device", "virtio-blk-pci,drive=disk,addr="+DiskSlot)
	return file, os.Truncate(file, size)
}

// RunPod boots a machine and makes a pod in it. Whatever fails is the error, with
// the console's end; the machine is stopped either way.
func (f *Fleet) RunPod(ctx context.Context, cfg qemu.Config, do func(*Kata) error) (err error) {
	m, err := f.Boot(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nthe console ends:\n%s", err, tail(m.Console()))
		}
		err = errors.Join(err, m.Stop())
	}()
	if err := m.Kata().Pod(ctx); err != nil {
		return err
	}
	return do(m.Kata())
}

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
	err = f.RunPod(ctx, cfg, func(k *Kata) error {
		if err := k.Container(ctx, "app", f.Ref, config); err != nil {
			return err
		}
		out, err = k.Output(ctx, "app", "done")
		return err
	})
	return out, err
}

// NewFleet sets the whole stage for machines that boot a guest image: a TPM whose
// key is enrolled, the broker that trusts it, the registry with an encrypted and
// signed image, the policies, and the reference values as they were predicted
// when the image was built. The secret is what the container is to print.
func (w *World) NewFleet(ctx context.Context, image GuestImage, accelerator, secret string) (*Fleet, error) {
	f := &Fleet{World: w, Accelerator: accelerator, Guest: image}
	w.Host = qemu.Gateway
	if w.AttestationPolicy == "" {
		w.AttestationPolicy = "machine.rego"
	}
	for _, step := range []func() error{
		func() (err error) { f.TPM, err = w.NewTPM(ctx, "enrolled"); return err },
		func() error {
			keys, err := w.Enrol(ctx, f.TPM)
			w.BrokerConfig = EnrolledKeys(keys)
			return err
		},
		func() error { return w.StartBroker(ctx, nil) },
		w.StartRegistry,
		func() error { return f.ship(ctx, secret) },
		func() (err error) { f.InitData, err = w.WriteInitData(ctx, "good", Pod{Image: f.Ref}); return err },
		func() error { return w.KnowImage(ctx, image) },
		func() error { return w.KnowInitData(ctx, f.InitData) },
		func() (err error) { f.machine, err = image.Config(accelerator, f.TPM, f.InitData); return err },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// ship puts the image into the registry, and what it takes to run it into the
// broker.
func (f *Fleet) ship(ctx context.Context, secret string) error {
	source, err := f.SmallImage()
	if err != nil {
		return err
	}
	if f.Ref, err = f.Encrypt(ctx, source, "demo/small:1"); err != nil {
		return err
	}
	signer, err := f.Keygen(ctx, "shipper")
	if err != nil {
		return err
	}
	if err := f.Sign(ctx, f.Ref, signer); err != nil {
		return err
	}
	return f.Policies(ctx, signer, secret)
}
