package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"path/filepath"
	"runtime"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict/predicttest"
	"github.com/vouchsafe-cc/vouchsafe/measure/qemu"
)

// What a guest boots, in bytes: 60 MB in all.
const (
	kernelSize = 12 << 20
	initrdSize = 48 << 20
)

// prediction is a guest to predict, and the hashing that it needs at least.
type prediction struct {
	name, bare string
	platform   predict.Platform
	hash       func(kernel, initrd []byte)
}

// Every document names its inputs by their SHA-256. Launch digests of SNP are
// made of these. Firmware measures the kernel once more, as a PE image, and both
// in every bank that it keeps: SHA-384 alone in a TD; a TPM has two.
var everyPrediction = []prediction{
	{"predict-snp", "SHA-256", predict.SNP, sum256},
	{"predict-tdx", "SHA-256 and SHA-384", predict.TDX, func(kernel, initrd []byte) {
		sum256(kernel, initrd)
		sum384(kernel, initrd)
	}},
	{"predict-tpm", "SHA-256 and SHA-384, PE", predict.TPM, func(kernel, initrd []byte) {
		sum256(kernel, initrd)
		sum256(kernel, nil)
		sum384(kernel, initrd)
	}},
}

func sum256(kernel, initrd []byte) {
	for _, b := range [][]byte{kernel, initrd} {
		runtime.KeepAlive(sha256.Sum256(b))
	}
}

func sum384(kernel, initrd []byte) {
	for _, b := range [][]byte{kernel, initrd} {
		runtime.KeepAlive(sha512.Sum384(b))
	}
}

// predictions compares the prediction of a guest, in all shapes of an SNP guest,
// with hashing what it boots.
func predictions(_ context.Context, dir, only string) ([]comparison, error) {
	var out []comparison
	for _, p := range everyPrediction {
		if only != "" && only != p.name {
			continue
		}
		c, err := p.comparison(filepath.Join(dir, p.name))
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (p prediction) comparison(dir string) (comparison, error) {
	body, initrd := make([]byte, kernelSize), make([]byte, initrdSize)
	rand.Read(body)
	rand.Read(initrd)
	kernel := boottest.Kernel(body)
	in := predict.Inputs{
		Platforms: []predict.Platform{p.platform}, Firmware: ovmftest.Build(ovmftest.Default()), Edition: boot.Stable202502,
		Kernel: kernel, Initrd: initrd, CommandLine: "console=ttyS0", VCPUs: []int{1, 2, 4, 8}, CPUs: []string{"EPYC-v4", "EPYC-Genoa"},
	}
	if p.platform != predict.SNP {
		if err := predicttest.WriteMachine(dir, 2, p.platform == predict.TPM); err != nil {
			return comparison{}, err
		}
		machine, err := qemu.Read(dir)
		if err != nil {
			return comparison{}, err
		}
		in.VCPUs, in.Memory, in.Machine = []int{2}, []uint64{1 << 30}, &machine
		in.Headers, in.IMA = []predict.Header{predict.Plain}, boot.IMA{Template: boot.IMANG, Hash: eventlog.SHA256}
	}
	return comparison{
		name: p.name, bare: p.bare + " of 60 MB", gate: gatePredict,
		thing: func() error {
			d, err := predict.Make(in)
			if err == nil && len(d.Values) == 0 {
				err = errors.New("nothing was predicted")
			}
			return err
		},
		base: func() error { p.hash(kernel, initrd); return nil },
	}, nil
}
