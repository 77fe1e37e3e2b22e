// Package mountinfo reads the kernel's table of mounts
// (proc_pid_mountinfo(5); Linux, Documentation/filesystems/proc.rst section 3.5).
//
// Names in it are the host's and the containers', and the kernel writes what
// would break a line or a field of it as octal digits. Whoever compares a path
// with the table, or opens one that it names, has to undo that; so nobody else
// reads the table.
package mountinfo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Mount is one row.
type Mount struct {
	Root    string // which directory of the filesystem is mounted
	Point   string // where, as the process sees it
	Type    string // of the filesystem: "cgroup2"
	Source  string // what the filesystem calls its device; may be empty
	Options string // of the filesystem, not of the mount: "rw,memory"
}

// self is the table of this process.
const self = "/proc/self/mountinfo"

// Self returns what is mounted where this process sees it.
func Self() ([]Mount, error) { return Read(self) }

// Read reads a table.
func Read(path string) ([]Mount, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(raw)
}

// Below returns the places at or below a directory where something is mounted.
func Below(mounts []Mount, dir string) (points []string) {
	for _, m := range mounts {
		if m.Point == dir || strings.HasPrefix(m.Point, strings.TrimSuffix(dir, "/")+"/") {
			points = append(points, m.Point)
		}
	}
	return points
}

// Parse reads a table. A row that is not understood is an error: what is mounted
// there could be missed.
func Parse(raw []byte) ([]Mount, error) {
	var mounts []Mount
	for line := range bytes.Lines(raw) {
		m, err := parseRow(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return nil, fmt.Errorf("row %d of the table of mounts: %w", len(mounts)+1, err)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

var (
	errShort  = errors.New("too few fields")
	errEscape = errors.New("a character that is written in no known way")
)

// Fields of a row: the number of the mount, that of the one it lies on, the
// device, the root, the mount point, options; then any number of further ones, a
// dash, and three of the filesystem.
const (
	fieldRoot  = 3
	fieldPoint = 4
	fieldMore  = 6 // or the dash
)

func parseRow(row string) (m Mount, err error) {
	// Not strings.Fields: a source may be empty.
	f := strings.Split(row, " ")
	dash := fieldMore
	for dash < len(f) && f[dash] != "-" {
		dash++
	}
	if dash+3 >= len(f) {
		return m, errShort
	}
	for _, number := range f[:2] {
		if _, err := strconv.ParseUint(number, 10, 32); err != nil {
			return m, fmt.Errorf("%.20q is no mount's number", number)
		}
	}
	m.Type, m.Options = f[dash+1], strings.Join(f[dash+3:], " ")
	for to, field := range map[*string]string{&m.Root: f[fieldRoot], &m.Point: f[fieldPoint], &m.Source: f[dash+2]} {
		if *to, err = unescape(field); err != nil {
			return m, err
		}
	}
	// The root need not be a path: that of a namespace's file is "net:[4026531840]".
	if !strings.HasPrefix(m.Point, "/") {
		return m, fmt.Errorf("%.20q is no place of a mount", m.Point)
	}
	return m, nil
}

// unescape undoes what the kernel does with blanks, line ends and backslashes
// (fs/seq_file.c, mangle_path): a backslash and three octal digits.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 >= len(s) {
			return "", errEscape
		}
		c, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
		if err != nil {
			return "", errEscape
		}
		b.WriteByte(byte(c))
		i += 3
	}
	return b.String(), nil
}
