package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// GuestDir is the directory that a Kata runtime names in mount points, mount
// sources and root paths (kata-agent 2.9 to 2.12). An agent whose state
// directory lies elsewhere reads such paths as below its own.
const GuestDir = "/run/kata-containers"

// Names inside the state directory.
const (
	sharedDir     = "shared/containers" // files that the host copies in
	sandboxDir    = "sandbox"           // shm, emptyDir volumes, resolv.conf
	namespacesDir = "sandbox-ns"
	runtimeDir    = "runtime" // the OCI runtime's own state
	volumesDir    = "volumes" // what the agent makes of volumes itself
)

// reserved cannot be container ids, because a container's bundle is a
// directory beside these; the last four are the hub's, the agent's and package
// swap's.
var reserved = []string{"shared", sandboxDir, namespacesDir, runtimeDir, volumesDir, "image", "image-disk", "journal", "swap"}

var containerID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

const maxID = 255 // bytes, what a file name may have

// ErrBadID is the text that runtimes know (kata-agent 1.5).
var ErrBadID = errors.New("invalid container id")

// CheckID accepts the container ids that Kata accepts and that can be the name
// of a directory, and fails with [ErrBadID] on all others.
func CheckID(id string) error {
	if len(id) > maxID || !containerID.MatchString(id) || slices.Contains(reserved, id) {
		return ErrBadID
	}
	return nil
}

// layout translates the paths of the protocol.
type layout struct {
	dir  string   // absolute and clean
	root *os.Root // of dir
}

// rel returns path relative to the state directory. It fails for a path
// outside, whatever dots it contains. Symbolic links are the business of the
// os.Root that the result is used with.
func (l layout) rel(path string) (string, error) {
	clean := filepath.Clean(path)
	for _, base := range []string{GuestDir, l.dir} {
		if rest, ok := strings.CutPrefix(clean, base+"/"); ok && filepath.IsLocal(rest) {
			return rest, nil
		}
	}
	return "", invalidf("path %q is not below %s", path, GuestDir)
}

// open opens the part of the state directory in which rel lies, and returns the
// name below it. Only two parts are open to the host. The others hold what the
// agent itself relies on: the OCI runtime's state, the bundles with their
// config.json and pulled roots, the layers of images. If the host could mount
// there, it could lay a directory that it writes with CopyFile under them. No
// symbolic link leads from one part to another.
func (l layout) open(rel string) (part *os.Root, name string, err error) {
	for _, dir := range []string{sharedDir, sandboxDir} {
		if name, ok := strings.CutPrefix(rel, dir+"/"); ok {
			part, err = l.root.OpenRoot(dir)
			return part, name, err
		}
	}
	return nil, "", invalidf("path %q is not below %s or %s", filepath.Join(GuestDir, rel), filepath.Join(GuestDir, sharedDir), filepath.Join(GuestDir, sandboxDir))
}

// openFile opens the existing file or directory rel of such a part for reading.
func (l layout) openFile(rel string) (*os.File, error) {
	part, name, err := l.open(rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = part.Close() }()
	return part.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold us
}

// translate returns where path lies on this machine. Unlike rel it leaves a
// path outside of the state directory alone.
func (l layout) translate(path string) string {
	if rel, err := l.rel(path); err == nil {
		return filepath.Join(l.dir, rel)
	}
	return path
}

// InvalidError is a request that cannot be met as it stands. Its text is meant
// for the host.
type InvalidError struct{ text string }

func (e *InvalidError) Error() string { return e.text }

func invalidf(format string, args ...any) error {
	return &InvalidError{fmt.Sprintf(format, args...)}
}
