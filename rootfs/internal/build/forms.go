package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/authenticode"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/disk"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/initramfs"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/uki"
)

// maker joins the parts of an image.
type maker struct {
	Inputs
	from   Packages
	kernel *kernel
	out    *Image
}

// initrdForm has all in the initramfs.
func (m *maker) initrdForm(ctx context.Context) error {
	t, err := base(m.Recipe, m.Agent)
	if err != nil {
		return err
	}
	if err := m.kernel.addModules(t, m.kernel.modules); err != nil {
		return err
	}
	if err := userland(ctx, t, m.Recipe, m.Lock, m.from); err != nil {
		return err
	}
	if m.out.Files[FileInitrd], err = initramfs.Write(t, m.Recipe.Kernel.Compression()); err != nil {
		return err
	}
	m.out.Files[FileKernel] = m.kernel.image
	m.out.Files[FileCmdline] = []byte(m.Recipe.Kernel.Cmdline + "\n")
	return m.have(FileInitrd, t)
}

// verityForm has the root on a disk, and what mounts it in the initramfs.
func (m *maker) verityForm(ctx context.Context) error {
	root, err := m.verified(ctx, FileDisk, disk.Root.CommandLine)
	if err != nil {
		return err
	}
	m.out.Files[FileDisk] = root.Kata()
	return nil
}

// verified makes the parts of the forms with a root on a disk, but for that disk:
// the kernel, what mounts the root in the initramfs, and the parameters.
func (m *maker) verified(ctx context.Context, file string, told func(disk.Root) string) (*disk.Verified, error) {
	first, err := base(m.Recipe, m.Agent)
	if err != nil {
		return nil, err
	}
	if err := m.kernel.addModules(first, m.kernel.first); err != nil {
		return nil, err
	}
	t, err := base(m.Recipe, m.Agent)
	if err != nil {
		return nil, err
	}
	if err := m.kernel.addModules(t, m.kernel.modules); err != nil {
		return nil, err
	}
	if err := userland(ctx, t, m.Recipe, m.Lock, m.from); err != nil {
		return nil, err
	}
	salt := sha256.Sum256([]byte("root of " + m.Recipe.Name))
	root, err := disk.Verify(ctx, t, salt[:])
	if err != nil {
		return nil, err
	}
	if m.out.Files[FileInitrd], err = initramfs.Write(first, m.Recipe.Kernel.Compression()); err != nil {
		return nil, err
	}
	m.out.Files[FileKernel] = m.kernel.image
	m.out.Files[FileParameters] = []byte(root.Parameters() + "\n")
	line := told(root.Root)
	if m.Recipe.Kernel.Cmdline != "" {
		line = m.Recipe.Kernel.Cmdline + " " + line
	}
	m.out.Files[FileCmdline] = []byte(line + "\n")
	if err := m.have(FileInitrd, first); err != nil {
		return nil, err
	}
	return root, m.have(file, t)
}

// ukiForm is the initrd form in one file.
func (m *maker) ukiForm(ctx context.Context) error {
	if err := m.initrdForm(ctx); err != nil {
		return err
	}
	return m.unify(ctx)
}

// diskForm is that file on a disk that firmware starts.
func (m *maker) diskForm(ctx context.Context) error {
	if err := m.ukiForm(ctx); err != nil {
		return err
	}
	var err error
	m.out.Files[FileBootable], err = disk.Bootable(m.out.Files[FileUKI], nil)
	return err
}

// verityDiskForm has the root on the same disk, behind what is started.
func (m *maker) verityDiskForm(ctx context.Context) error {
	root, err := m.verified(ctx, FileBootable, disk.Root.BootableCommandLine)
	if err != nil {
		return err
	}
	if err := m.unify(ctx); err != nil {
		return err
	}
	m.out.Files[FileBootable], err = disk.Bootable(m.out.Files[FileUKI], root)
	return err
}

// unify makes one file of kernel, initramfs and command line, and signs it where
// somebody does.
func (m *maker) unify(ctx context.Context) error {
	if m.Recipe.UKI == nil {
		return fmt.Errorf("the recipe has no [uki], which names the stub of a unified kernel image")
	}
	stub, _, err := fileOf(ctx, m.Lock, m.from, m.Recipe.UKI.Package, m.Recipe.UKI.File)
	if err != nil {
		return err
	}
	release := fmt.Sprintf("ID=%s\nNAME=%q\nPRETTY_NAME=%q\n", m.Recipe.Name, m.Recipe.Name, m.Recipe.Name)
	// The kernel comes last, for it may use memory behind itself.
	image, err := uki.Make(stub, []uki.Section{
		{Name: ".osrel", Content: []byte(release)},
		{Name: ".cmdline", Content: bytes.TrimSuffix(m.out.Files[FileCmdline], []byte("\n"))},
		{Name: ".uname", Content: []byte(m.kernel.release)},
		{Name: ".initrd", Content: m.out.Files[FileInitrd]},
		{Name: ".linux", Content: m.kernel.image},
	})
	if err == nil && m.SecureBoot != nil {
		image, err = authenticode.Sign(image, m.SecureBoot.Key, m.SecureBoot.Certificate)
	}
	if err != nil {
		return err
	}
	delete(m.out.Files, FileKernel)
	delete(m.out.Files, FileInitrd)
	m.out.Files[FileUKI] = image
	return nil
}

// have checks a tree and remembers it for what is told of the image.
func (m *maker) have(where string, t *tree.Tree) error {
	m.out.Trees[where] = t
	return t.Check()
}

// fileOf reads one file of a package, with what names the package.
func fileOf(ctx context.Context, l *lock.Lock, from Packages, name, file string) ([]byte, lock.Package, error) {
	p, ok := l.Find(name)
	if !ok {
		return nil, p, fmt.Errorf("the lock has no package %s: lock again", name)
	}
	c := collection{}
	if err := c.collect(ctx, from, p, everything); err != nil {
		return nil, p, err
	}
	_, f, err := c.resolve(file)
	if err != nil {
		return nil, p, fmt.Errorf("package %s: %w", name, err)
	}
	return f.content, p, nil
}

// Firmware returns a firmware of the recipe.
func Firmware(ctx context.Context, f recipe.Firmware, l *lock.Lock, from Packages) ([]byte, error) {
	raw, _, err := fileOf(ctx, l, from, f.Package, f.File)
	return raw, err
}
