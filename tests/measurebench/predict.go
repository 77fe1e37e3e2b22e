package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
)

// What a guest boots, in bytes: 60 MB in all.
const (
	kernelSize = 12 << 20
	initrdSize = 48 << 20
)

// predictions compares the prediction of an SNP guest in all of its shapes with
// hashing what it boots, once.
func predictions(_ context.Context, _, only string) ([]comparison, error) {
	const name = "predict-snp"
	if only != "" && only != name {
		return nil, nil
	}
	kernel, initrd := make([]byte, kernelSize), make([]byte, initrdSize)
	rand.Read(kernel)
	rand.Read(initrd)
	in := predict.Inputs{
		Platforms: []predict.Platform{predict.SNP}, Firmware: ovmftest.Build(ovmftest.Default()),
		Kernel: kernel, Initrd: initrd, CommandLine: "console=ttyS0", VCPUs: []int{1, 2, 4, 8}, CPUs: []string{"EPYC-v4", "EPYC-Genoa"},
	}
	var sink byte
	return []comparison{{
		name: name, bare: "SHA-256 of 60 MB", gate: gatePredict,
		thing: func() error {
			d, err := predict.Make(in)
			if err == nil && len(d.Values) == 0 {
				err = errors.New("nothing was predicted")
			}
			return err
		},
		base: func() error {
			for _, b := range [][]byte{kernel, initrd} {
				sum := sha256.Sum256(b)
				sink ^= sum[0]
			}
			return nil
		},
	}}, nil
}
