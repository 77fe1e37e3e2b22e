package prove

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/authenticode"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
)

// unified takes a unified kernel image apart and returns its initrd.
func (i *Image) unified() ([]byte, Check) {
	c := Check{Name: "unified image", Says: "its sections are a kernel, this command line and an initrd"}
	p, err := efi.ParsePE(i.Files[build.FileUKI])
	if err != nil {
		c.Err = fmt.Errorf("%s: %w", build.FileUKI, err)
		return nil, c
	}
	line, errLine := p.Contents(".cmdline")
	initrd, errInitrd := p.Contents(".initrd")
	kernel, errKernel := p.Contents(".linux")
	c.Err = errors.Join(errLine, errInitrd, errKernel)
	switch {
	case c.Err != nil:
	case !bytes.Equal(append(bytes.Clone(line), '\n'), i.Files[build.FileCmdline]):
		c.Err = fmt.Errorf("its command line is not that of %s", build.FileCmdline)
	case len(kernel) == 0 || len(initrd) == 0:
		c.Err = errors.New("it has no kernel or no initrd")
	}
	return initrd, c
}

// secureBoot tells whose signature is on the image that firmware starts, and
// whether it is one on this image. Who may sign is for the machine's keys to say.
func (i *Image) secureBoot() Check {
	c := Check{Name: "secure boot", Says: build.FileUKI + " is not signed for it"}
	p, err := efi.ParsePE(i.Files[build.FileUKI])
	if err != nil {
		c.Err = err
		return c
	}
	all, err := authenticode.Read(p)
	if c.Err = err; err == nil && len(all) > 0 {
		signer := all[0].Signer
		c.Says = fmt.Sprintf("%s is signed by %q, certificate with SHA-256 %x", build.FileUKI, signer.Subject, sha256.Sum256(signer.Raw))
	}
	return c
}
