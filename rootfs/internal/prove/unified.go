package prove

import (
	"bytes"
	"errors"
	"fmt"

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
