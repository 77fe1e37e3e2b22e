package build

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/kmod"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// kernel is what a package with a kernel gives.
type kernel struct {
	image   []byte
	release string // as uname -r tells it
	modules []kmod.Module
	origin  string
}

// modulesDir is where modules are in the image.
const modulesDir = "/usr/lib/modules"

func readKernel(ctx context.Context, r *recipe.Recipe, l *lock.Lock, from Packages) (*kernel, error) {
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
