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
	release string // as uname -r tells it
	modules []kmod.Module
	origin  string
}

// modulesDir is where modules are in the image.
const modulesDir = "/usr/lib/modules"

func readKernel(ctx context.Context, in Inputs, from Packages) (*kernel, error) {
	if in.Recipe.Kernel.File != "" {
		return ownKernel(in)
	}
	r, l := in.Recipe, in.Lock
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
	k.modules, err = kmod.NewSet(paths, builtin, read).Closure(r.Kernel.Modules)
	return k, err
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
		for _, m := range in.Recipe.Kernel.Modules {
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
	k.modules, err = kmod.NewSet(own.Paths(), builtin, own.Open).Closure(in.Recipe.Kernel.Modules)
	return k, err
}

// originOwn begins the origin of modules that no package has; it is no name of a
// package.
const originOwn = "(own kernel)"

// addModules puts the modules into the tree, and the order to load them in.
func (k *kernel) addModules(t *tree.Tree) error {
	var order strings.Builder
	for _, m := range k.modules {
		name := path.Join(modulesDir, k.release, m.Path)
		if err := t.Add(name, tree.File{Mode: 0o644, Content: m.Content, Origin: k.origin, Declared: true}); err != nil {
			return err
		}
		if m.Optional {
			order.WriteByte('-')
		}
		order.WriteString(name + "\n")
	}
	return t.Add(path.Join(modulesDir, "load"), tree.File{Mode: 0o644, Content: []byte(order.String()), Origin: "layout"})
}
