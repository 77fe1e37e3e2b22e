package build

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/kmod"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// kernel is what a package with a kernel gives, or whoever built one.
type kernel struct {
	image   []byte
	release string        // as uname -r tells it
	modules []kmod.Module // of the root
	first   []kmod.Module // of an initramfs that opens the root
	origin  string
}

// modulesDir is where modules are in the image.
const modulesDir = "/usr/lib/modules"

// opening is what an initramfs needs beside the devices' drivers to open a root
// under dm-verity: the hash that the processor is best at first, for dm-verity
// keeps the one that it found.
var opening = []string{"-sha256_ssse3", "dm_verity", "erofs"}

func readKernel(ctx context.Context, in Inputs, from Packages) (*kernel, error) {
	if in.Recipe.Kernel.File != "" {
		return ownKernel(in)
	}
	l := in.Lock
	p, ok := l.Find(l.Kernel)
	if !ok {
		return nil, fmt.Errorf("the lock has no package %s: lock again", l.Kernel)
	}
	c := collection{}
	err := c.collect(ctx, from, p, func(name string) bool {
		name = tree.Canonical(name)
		return strings.HasPrefix(name, "/boot/vmlinuz-") || strings.HasPrefix(name, modulesDir+"/")
	})
	if err != nil {
		return nil, err
	}
	images, err := c.match("/boot/vmlinuz-*")
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("package %s has not one kernel in /boot, but %d", p.Name, len(images))
	}
	k := &kernel{image: c[images[0]].content, release: strings.TrimPrefix(path.Base(images[0]), "vmlinuz-"), origin: p.Name + " " + p.Version}
	dir := path.Join(modulesDir, k.release) + "/"
	var paths []string
	for name := range c {
		if rel, ok := strings.CutPrefix(name, dir); ok {
			paths = append(paths, rel)
		}
	}
	slices.Sort(paths)
	read := func(rel string) ([]byte, error) {
		_, f, err := c.resolve(dir + rel)
		return f.content, err
	}
	builtin, err := read("modules.builtin")
	if err != nil {
		return nil, err
	}
	return k, k.choose(kmod.NewSet(paths, builtin, read), in)
}

// choose takes the modules that the recipe wants, with what they need.
func (k *kernel) choose(set *kmod.Set, in Inputs) (err error) {
	wanted := in.Recipe.Kernel
	if k.modules, err = set.Closure(wanted.Modules, wanted.Later); err != nil {
		return err
	}
	if in.Form == Verity || in.Form == VerityDisk {
		k.first, err = set.Closure(slices.Concat(wanted.Modules, opening), nil)
	}
	return err
}

// ownKernel is one from no package.
func ownKernel(in Inputs) (*kernel, error) {
	own := in.Kernel
	if own == nil || in.Lock.Own == nil {
		return nil, errors.New("the recipe names the file of a kernel, and none was read or pinned")
	}
	if err := own.Check(*in.Lock.Own); err != nil {
		return nil, err
	}
	k := &kernel{image: own.Image, release: own.Release, origin: originOwn + " " + own.Release}
	if !own.Described() {
		for _, m := range slices.Concat(in.Recipe.Kernel.Modules, in.Recipe.Kernel.Later) {
			if !strings.HasPrefix(m, "-") {
				return nil, fmt.Errorf("the recipe needs the module %s, and nothing tells whether it is built into the kernel: give its [kernel] directory, "+
					"in which modules.builtin says so", m)
			}
		}
		return k, nil
	}
	builtin, err := own.Open(ownkernel.Builtin)
	if err != nil {
		return nil, err
	}
	return k, k.choose(kmod.NewSet(own.Paths(), builtin, own.Open), in)
}

// originOwn begins the origin of modules that no package has; it is no name of a
// package.
const originOwn = "(own kernel)"

// addModules puts modules into the tree, and the lists that say in which order,
// and when, the agent loads them. They lie with the modules, so that another
// kernel, whose modules they are not, finds none.
func (k *kernel) addModules(t *tree.Tree, modules []kmod.Module) error {
	lists := map[string]*strings.Builder{"load": {}, "later": {}}
	for _, m := range modules {
		name := path.Join(modulesDir, k.release, m.Path)
		if err := t.Add(name, tree.File{Mode: 0o644, Content: m.Content, Origin: k.origin, Declared: true}); err != nil {
			return err
		}
		order := lists["load"]
		if m.Later {
			order = lists["later"]
		}
		if m.Optional {
			order.WriteByte('-')
		}
		order.WriteString(name + "\n")
	}
	for name, order := range lists {
		if err := t.Add(path.Join(modulesDir, k.release, name), tree.File{Mode: 0o644, Content: []byte(order.String()), Origin: "layout"}); err != nil {
			return err
		}
	}
	return nil
}
