package container

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

// cgroupParents remembers which directories above the containers' cgroups an OCI
// runtime has to make. It makes them and never removes them, so that a pod's
// directories would outlive the pod.
//
// A directory is removed with its last container, and only if it was not there
// before the first. No lock is held while a runtime works: a creation is counted
// before it begins, so that nobody removes what it is about to use.
type cgroupParents struct {
	roots []string // where the hierarchies are mounted

	mu      sync.Mutex
	parents map[string]*cgroupParent // by path inside a hierarchy
}

type cgroupParent struct {
	users int
	made  []string // in which hierarchies it was absent: full paths
}

// newCgroupParents looks up where hierarchies are mounted. Without one there is
// nothing to remove.
func newCgroupParents(mounts []mountinfo.Mount) *cgroupParents {
	c := &cgroupParents{parents: map[string]*cgroupParent{}}
	for _, m := range mounts {
		if m.Type == "cgroup" || m.Type == "cgroup2" {
			c.roots = append(c.roots, m.Point)
		}
	}
	return c
}

// above lists the directories above a cgroup, the highest first.
func above(cgroup string) []string {
	var list []string
	for dir := path.Dir(path.Clean("/" + cgroup)); dir != "/"; dir = path.Dir(dir) {
		list = append([]string{dir}, list...)
	}
	return list
}

// enter counts a container before it is made.
func (c *cgroupParents) enter(cgroup string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, dir := range above(cgroup) {
		p := c.parents[dir]
		if p == nil {
			p = &cgroupParent{}
			for _, root := range c.roots {
				full := filepath.Join(root, dir)
				if _, err := os.Lstat(full); errors.Is(err, fs.ErrNotExist) {
					p.made = append(p.made, full)
				}
			}
			c.parents[dir] = p
		}
		p.users++
	}
}

// leave counts a container that is gone. A directory in which something else
// lives now stays.
func (c *cgroupParents) leave(cgroup string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirs := above(cgroup)
	for i := len(dirs) - 1; i >= 0; i-- {
		p := c.parents[dirs[i]]
		if p == nil {
			continue
		}
		if p.users--; p.users > 0 {
			continue
		}
		delete(c.parents, dirs[i])
		for _, full := range p.made {
			_ = unix.Rmdir(full)
		}
	}
}
