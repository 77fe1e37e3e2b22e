package build

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/cpio"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// Form is how an image is started.
type Form string

// The forms.
const (
	Initrd Form = "initrd" // all in the initramfs
	Verity Form = "verity" // a root under dm-verity
	UKI    Form = "uki"    // the initrd form as one file for firmware
)

// Inputs is what an image is made of.
type Inputs struct {
	Recipe *recipe.Recipe
	// RecipeText is the file that it was read from.
	RecipeText []byte
	Lock       *lock.Lock
	Agent      []byte
	Form       Form
	// Created is what bills of materials say; the zero time of Unix unless
	// SOURCE_DATE_EPOCH tells another.
	Created time.Time
}

// Files of an image.
const (
	FileKernel     = "vmlinuz"
	FileInitrd     = "initrd.zst"
	FileCmdline    = "cmdline"
	FileDisk       = "rootfs.img"
	FileParameters = "kernel_verity_params"
	FileUKI        = "guest.efi"
)

// Image is what was built: files by their names.
type Image struct {
	Files map[string][]byte
	// Trees are what is in the initramfs and in the root, by the file that has it.
	Trees   map[string]*tree.Tree
	Release string // of the kernel
}

// Make builds. The same inputs give the same bytes.
func Make(ctx context.Context, in Inputs, from Packages) (*Image, error) {
	if err := in.Lock.Serves(in.Recipe); err != nil {
		return nil, err
	}
	k, err := readKernel(ctx, in.Recipe, in.Lock, from)
	if err != nil {
		return nil, err
	}
	m := &maker{Inputs: in, from: from, kernel: k, out: &Image{Files: map[string][]byte{}, Trees: map[string]*tree.Tree{}, Release: k.release}}
	switch in.Form {
	case Initrd:
		err = m.initrdForm(ctx)
	case Verity:
		err = m.verityForm(ctx)
	case UKI:
		err = m.ukiForm(ctx)
	default:
		err = fmt.Errorf("%q is no form of an image: want initrd, verity or uki", in.Form)
	}
	if err != nil {
		return nil, err
	}
	return m.out, nil
}

// initramfs packs a tree as the kernel unpacks it. The encoder runs alone, as
// its output depends on how work is shared.
func initramfs(t *tree.Tree) ([]byte, error) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, err
	}
	if err := cpio.Write(z, t); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return b.Bytes(), nil
}
