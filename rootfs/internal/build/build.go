package build

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
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

	Disk       Form = "disk"        // that file on a disk with an EFI partition
	VerityDisk Form = "verity-disk" // and the root beside it, under dm-verity
)

// forms says how each is made.
var forms = map[Form]func(*maker, context.Context) error{
	Initrd: (*maker).initrdForm, Verity: (*maker).verityForm, UKI: (*maker).ukiForm, Disk: (*maker).diskForm, VerityDisk: (*maker).verityDiskForm,
}

// FirmwareStarts reports whether firmware starts the form by itself.
func (f Form) FirmwareStarts() bool { return f == UKI || f == Disk || f == VerityDisk }

// Inputs is what an image is made of.
type Inputs struct {
	Recipe *recipe.Recipe
	// RecipeText is the file that it was read from.
	RecipeText []byte
	Lock       *lock.Lock
	Kernel     *ownkernel.Kernel // where the recipe names a file, else nil
	Agent      []byte
	Form       Form
	// Created is what bills of materials say; the zero time of Unix unless
	// SOURCE_DATE_EPOCH tells another.
	Created time.Time
	// SecureBoot signs what firmware starts; nil leaves it unsigned.
	SecureBoot *Signer
}

// A Signer is a key for Secure Boot, with its certificate.
type Signer struct {
	Key         crypto.Signer
	Certificate *x509.Certificate
}

// Files of an image.
const (
	FileKernel     = "vmlinuz"
	FileInitrd     = "initrd.img"
	FileCmdline    = "cmdline"
	FileDisk       = "rootfs.img"
	FileParameters = "kernel_verity_params"
	FileUKI        = "guest.efi"
	FileBootable   = "disk.img"
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
	switch {
	case forms[in.Form] == nil:
		return nil, fmt.Errorf("%q is no form of an image: want initrd, verity, uki, disk or verity-disk", in.Form)
	case in.SecureBoot != nil && !in.Form.FirmwareStarts():
		return nil, fmt.Errorf("there is nothing to sign for Secure Boot in an image of form %s: want uki, disk or verity-disk", in.Form)
	}
	if err := in.Lock.Serves(in.Recipe); err != nil {
		return nil, err
	}
	k, err := readKernel(ctx, in, from)
	if err != nil {
		return nil, err
	}
	m := &maker{Inputs: in, from: from, kernel: k, out: &Image{Files: map[string][]byte{}, Trees: map[string]*tree.Tree{}, Release: k.release}}
	if err := forms[in.Form](m, ctx); err != nil {
		return nil, err
	}
	return m.out, nil
}
