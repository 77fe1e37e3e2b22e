package oom

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

// place is where the memory controller keeps a process's cgroup.
type place struct {
	dir string
	v2  bool
}

// locate finds the memory cgroup of a process by its /proc/PID/cgroup and our
// own mounts (cgroups(7)). On a system with both hierarchies the controller is in
// the older one.
func locate(cgroups []byte, mounts []mountinfo.Mount) (place, error) {
	within := map[bool]string{} // by v2
	for line := range bytes.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			within[true] = parts[2]
		case hasWord(parts[1], "memory"):
			within[false] = parts[2]
		}
	}
	for _, v2 := range []bool{false, true} {
		cgroup, ok := within[v2]
		if !ok {
			continue
		}
		if root, mount, ok := hierarchy(mounts, v2); ok {
			below, inside := strings.CutPrefix(cgroup, strings.TrimSuffix(root, "/"))
			// A process outside our cgroup namespace is in "/../x" (cgroup_namespaces(7)).
			if !inside || below != "" && below[0] != '/' || slices.Contains(strings.Split(below, "/"), "..") {
				continue
			}
			return place{path.Join(mount, below), v2}, nil
		}
	}
	return place{}, ErrUnsupported
}

// hierarchy returns which cgroup is mounted where.
func hierarchy(mounts []mountinfo.Mount, v2 bool) (root, mount string, ok bool) {
	for _, m := range mounts {
		if v2 && m.Type == "cgroup2" || !v2 && m.Type == "cgroup" && hasWord(m.Options, "memory") {
			return m.Root, m.Point, true
		}
	}
	return "", "", false
}

func hasWord(list, word string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if part == word {
			return true
		}
	}
	return false
}
