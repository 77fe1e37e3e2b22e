package build

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/linkage"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// texts are the files of /etc that programs expect. There is one user.
var texts = map[string]string{
	"/etc/hostname":    "guest\n",
	"/etc/hosts":       "127.0.0.1 localhost\n::1 localhost\n",
	"/etc/passwd":      "root:x:0:0:root:/:/nonexistent\n",
	"/etc/group":       "root:x:0:\n",
	"/etc/resolv.conf": "", // the agent binds another over it
}

// base is what every tree of the image has: PID 1 and the empty directories.
func base(r *recipe.Recipe, agent []byte) (*tree.Tree, error) {
	needs, err := linkage.Closure(func(string) (linkage.Found, bool) { return linkage.Found{}, false }, map[string][]byte{"the agent": agent})
	if err != nil || len(needs) > 0 {
		return nil, fmt.Errorf("the agent must be a static program: %w", err)
	}
	t := tree.New()
	if err := t.Add(r.Agent.Path, tree.File{Mode: 0o755, Content: agent, Origin: "agent", Declared: true}); err != nil {
		return nil, err
	}
	for _, link := range []struct{ name, target string }{{"/init", r.Agent.Path[1:]}, {"/usr/sbin/init", "../.." + r.Agent.Path}} {
		if err := t.Add(link.name, tree.File{Mode: fs.ModeSymlink | 0o777, Target: link.target, Origin: "agent"}); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// userland adds the programs, the libraries that they need, and data.
func userland(ctx context.Context, t *tree.Tree, r *recipe.Recipe, l *lock.Lock, from Packages) error {
	c, err := ofPrograms(ctx, r, l, from)
	if err != nil {
		return err
	}
	programs := map[string][]byte{}
	for _, part := range r.Program {
		for _, name := range part.Files {
			_, f, err := c.resolve(name)
			if err != nil {
				return fmt.Errorf("package %s: %w", part.Package, err)
			}
			if !bytes.HasPrefix(f.content, []byte(elf.ELFMAG)) {
				return fmt.Errorf("package %s: %s is no program of the machine's own code", part.Package, name)
			}
			programs[name] = f.content
		}
	}
	libraries, err := linkage.Closure(c.lookup, programs)
	if err != nil {
		return err
	}
	for name := range programs {
		libraries = append(libraries, name)
	}
	slices.Sort(libraries)
	for _, name := range libraries {
		if err := c.put(t, name, true); err != nil {
			return err
		}
	}
	for name, text := range texts {
		if err := t.Add(name, tree.File{Mode: 0o644, Content: []byte(text), Origin: "layout"}); err != nil {
			return err
		}
	}
	return data(ctx, t, r, l, from)
}

// ofPrograms reads the packages that programs and their libraries can be in: all
// of the lock but the kernel and those that are there for something else.
func ofPrograms(ctx context.Context, r *recipe.Recipe, l *lock.Lock, from Packages) (collection, error) {
	other := map[string]bool{l.Kernel: true}
	for _, p := range r.Data {
		other[p.Package] = true
	}
	for _, f := range r.Firmware {
		other[f.Package] = true
	}
	if r.UKI != nil {
		other[r.UKI.Package] = true
	}
	for _, p := range r.Program {
		delete(other, p.Package)
	}
	c := collection{}
	for _, p := range l.Package {
		if other[p.Name] {
			continue
		}
		if err := c.collect(ctx, from, p, everything); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func data(ctx context.Context, t *tree.Tree, r *recipe.Recipe, l *lock.Lock, from Packages) error {
	for _, part := range r.Data {
		p, ok := l.Find(part.Package)
		if !ok {
			return fmt.Errorf("the lock has no package %s: lock again", part.Package)
		}
		c := collection{}
		if err := c.collect(ctx, from, p, everything); err != nil {
			return err
		}
		var joined []byte
		for _, pattern := range part.Files {
			names, err := c.match(pattern)
			if err != nil {
				return fmt.Errorf("package %s: %w", part.Package, err)
			}
			for _, name := range names {
				if part.Join == "" {
					if err := c.put(t, name, !strings.ContainsAny(pattern, `*?[\`)); err != nil {
						return err
					}
					continue
				}
				_, f, err := c.resolve(name)
				if err != nil {
					return err
				}
				joined = append(joined, f.content...)
				if len(joined) > 0 && joined[len(joined)-1] != '\n' {
					joined = append(joined, '\n')
				}
			}
		}
		if part.Join == "" {
			continue
		}
		if err := t.Add(part.Join, tree.File{Mode: 0o644, Content: joined, Origin: p.Name + " " + p.Version}); err != nil {
			return err
		}
	}
	return nil
}
