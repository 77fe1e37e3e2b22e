package oom

import (
	"bytes"
	"path"
	"strings"
)

// place is where the memory controller keeps a process's cgroup.
type place struct {
	dir string
	v2  bool
}

// locate finds the memory cgroup of a process by its /proc/PID/cgroup and our
// /proc/self/mountinfo (cgroups(7), proc_pid_mountinfo(5)). On a system with both
// hierarchies the controller is in the older one.
func locate(cgroups, mountinfo []byte) (place, error) {
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
		if root, mount, ok := hierarchy(mountinfo, v2); ok {
			below, inside := strings.CutPrefix(cgroup, strings.TrimSuffix(root, "/"))
			if !inside {
				continue
			}
			return place{path.Join(mount, below), v2}, nil
		}
	}
	return place{}, ErrUnsupported
}

// hierarchy returns which cgroup is mounted where.
func hierarchy(mountinfo []byte, v2 bool) (root, mount string, ok bool) {
	for line := range bytes.Lines(mountinfo) {
		left, right, found := strings.Cut(strings.TrimSpace(string(line)), " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !found || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		if v2 && kind[0] == "cgroup2" || !v2 && kind[0] == "cgroup" && hasWord(kind[2], "memory") {
			return fields[3], fields[4], true
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
