package world

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// NewFleet sets the whole stage for machines that boot a guest image: a TPM whose
// key is enrolled, the broker that trusts it, the registry with an encrypted and
// signed image, the policies, and the reference values as they were predicted
// when the image was built. The secret is what the container is to print.
func (w *World) NewFleet(ctx context.Context, image GuestImage, accelerator, secret string) (*Fleet, error) {
	f := &Fleet{World: w, Accelerator: accelerator, Guest: image}
	w.Host, w.AttestationPolicy = qemu.Gateway, "machine.rego"
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
