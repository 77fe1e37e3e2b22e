package world

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// NewFleet sets the whole stage for machines that boot a guest image: a TPM whose
// key is enrolled, the broker that trusts it, the registry with an encrypted and
// signed image, the policies, and the reference values as they are predicted
// from the files. The secret is what the container is to print.
func (w *World) NewFleet(ctx context.Context, image, accelerator, secret string) (*Fleet, error) {
	f := &Fleet{World: w, Accelerator: accelerator}
	w.Host, w.AttestationPolicy = qemu.Gateway, "machine.rego"
	for _, step := range []func() error{
		func() (err error) { f.Guest, err = OpenGuestImage(image); return err },
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
		func() error { return w.Foresee(ctx, f.Guest, f.InitData) },
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
