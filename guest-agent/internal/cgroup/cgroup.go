// Package cgroup tells which cgroups a process is in, and where their files are
// (cgroups(7); Linux, Documentation/admin-guide/cgroup-v2.rst).
package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

// Unified is the name of the hierarchy of version 2, which serves all controllers.
const Unified = ""

// Paths are the cgroups of one process by hierarchy: "/pod/a" in "cpu,cpuacct".
// They are seen from our own cgroup namespace: what lies outside of it begins
// with "/..".
type Paths map[string]string

// maxTable bounds what is read of /proc/PID/cgroup, in bytes.
const maxTable = 1 << 20

var errLong = errors.New("the table of a process's cgroups is too long")

// Read reads a process's table: /proc/PID/cgroup.
func Read(file string) (Paths, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxTable {
		return nil, errLong
	}
	return Parse(string(raw))
}

// Of reads the table of a process by its number.
func Of(pid int) (Paths, error) { return Read(fmt.Sprintf("/proc/%d/cgroup", pid)) }

// Parse reads the rows of a table: "4:cpu,cpuacct:/pod/a". A row that is not
// understood is an error: a process would seem to be in no cgroup.
func Parse(table string) (Paths, error) {
	paths := Paths{}
	for line := range strings.Lines(table) {
		row := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(row) != 3 || !strings.HasPrefix(row[2], "/") {
			return nil, fmt.Errorf("row %.80q of the table of cgroups is not understood", line)
		}
		if _, twice := paths[row[1]]; twice {
			return nil, fmt.Errorf("hierarchy %.80q is in the table of cgroups twice", row[1])
		}
		paths[row[1]] = row[2]
	}
	return paths, nil
}

// Dirs are the directories of one process's cgroups by controller, and by
// Unified.
type Dirs map[string]string

// Dirs finds the directories in the hierarchies that are mounted. A cgroup that
// no mount shows has none.
func (p Paths) Dirs(mounts []mountinfo.Mount) Dirs {
	within := map[string]string{}
	for hierarchy, at := range p {
		for controller := range strings.SplitSeq(hierarchy, ",") {
			within[controller] = at
		}
	}
	dirs := Dirs{}
	for _, m := range mounts {
		names := []string{Unified}
		switch m.Type {
		case "cgroup2":
		case "cgroup":
			names = strings.Split(m.Options, ",")
		default:
			continue
		}
		for _, name := range names {
			at, is := within[name]
			if !is || (m.Type == "cgroup") != (name != Unified) {
				continue
			}
			if below, shown := inside(at, m.Root); shown {
				dirs[name] = path.Join(m.Point, below)
			}
		}
	}
	return dirs
}

// inside returns where a cgroup is below another, if it is.
func inside(at, root string) (below string, is bool) {
	below, is = strings.CutPrefix(at, strings.TrimSuffix(root, "/"))
	is = is && (below == "" || below[0] == '/') && !slices.Contains(strings.Split(below, "/"), "..")
	return below, is
}

// Of returns the directory of a controller, empty if there is none, and whether it
// is of version 2. Where both are mounted the older one has the controllers.
func (d Dirs) Of(controller string) (dir string, v2 bool) {
	if dir, ok := d[controller]; ok {
		return dir, false
	}
	return d[Unified], true
}
