package world

import (
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// Fleet is machines that the broker knows: an image, a TPM that was enrolled, and
// what was foreseen of both for one pod.
type Fleet struct {
	*World
	Accelerator string
	Guest       GuestImage
	TPM         string // state directory; every machine gets a copy
	InitData    string // file
	Ref         string // of the container's image

	machine qemu.Config
	// Files with machines that were saved, empty for none: before the init-data was
	// read, and when the agent was ready.
	unread, ready string
}

// Config is the machine as it was foreseen.
func (f *Fleet) Config() qemu.Config { return f.machine }

// Save boots the machine once, for all that go on from there. What a firmware
// measures they have in common: another command line, or another initramfs, takes a
// boot of its own. So does another TPM, whose keys a saved machine brings along.
func (f *Fleet) Save(ctx context.Context) error {
	f.ready = f.Path("saved-ready")
	return f.SaveBooted(ctx, f.Config(), f.ready)
}

// SaveUnread is Save for machines with other init-data too.
func (f *Fleet) SaveUnread(ctx context.Context) error {
	f.unread, f.ready = f.Path("saved-unread"), f.Path("saved-ready")
	return f.SaveTwice(ctx, f.Config(), f.unread, f.ready)
}

// Booted is the machine as it was foreseen, which goes on from where its agent was
// ready, if it was saved.
func (f *Fleet) Booted() qemu.Config {
	cfg := f.machine
	cfg.RestoreFrom = f.ready
	return cfg
}

// Unread is the machine with another document, which goes on from where it looked
// for it, if it was saved.
func (f *Fleet) Unread(initData string) qemu.Config {
	cfg := f.machine
	cfg.RestoreFrom, cfg.InitData = f.unread, initData
	return cfg
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
			m.laps.lap("refused")
			err = fmt.Errorf("%w\nthe console ends:\n%s", err, tail(m.Console()))
		}
		err = errors.Join(err, m.Stop())
		m.laps.lap("end")
		f.tell(map[bool]string{true: "a guest that was booted", false: "a guest that went on"}[cfg.RestoreFrom == ""], m.laps)
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
		func() (err error) {
			var keys string
			f.TPM, keys, err = w.EnrolledTPM(ctx)
			w.BrokerConfig = EnrolledKeys(keys)
			return err
		},
		func() error { return w.StartBroker(ctx, nil) },
		w.StartRegistry,
		func() error { return f.ship(ctx, secret) },
		func() (err error) {
			f.InitData, err = w.WriteInitData(ctx, "good", Pod{Image: f.Ref, Beside: append([]Beside{witness}, w.Beside...)})
			return err
		},
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
